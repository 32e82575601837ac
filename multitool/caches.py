"""Key-value caches of many paths: rows gathered from several of them, with room to grow.

Knows what transformers' caches consist of. What is given is never changed.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor


def gathered(parts: Sequence[tuple[object, Tensor]]):
    """One cache of rows of several that are as long as each other; the model can grow it.

    Args:
        parts: caches of transformers, each with the rows to take from it, (n,).
    """
    whole = copy.copy(parts[0][0])
    whole.layers = [
        _gathered_layer([(cache.layers[position], rows) for cache, rows in parts])
        for position in range(len(whole.layers))
    ]
    return whole


def cache_bytes(cache) -> int:
    """The memory that a cache's tensors take."""
    states = [state for layer in cache.layers for held in _dictionaries(layer) for state in held.values()]
    return sum(state.nbytes for state in states if isinstance(state, Tensor))


def _gathered_layer(parts: Sequence[tuple[object, Tensor]]):
    from multitool.roomy_layer import DynamicLayer, RoomyLayer  # transformers: seconds to import

    if type(parts[0][0]) in (DynamicLayer, RoomyLayer):
        return RoomyLayer(parts)
    whole, *others = [_reordered(layer, rows) for layer, rows in parts]
    if others:
        for kept, *more in zip(_dictionaries(whole), *map(_dictionaries, others), strict=True):
            for name, state in kept.items():
                if isinstance(state, Tensor) and state.ndim > 2:  # (paths, …); others are the same for all paths
                    kept[name] = torch.cat([state, *(held[name] for held in more)])
    return whole


def _reordered(layer, rows: Tensor):
    """Those rows of a layer of any kind."""
    twin = copy.copy(layer)
    for name, value in vars(twin).items():
        if isinstance(value, dict):
            setattr(twin, name, dict(value))
    twin.reorder_cache(rows)
    return twin


def _dictionaries(layer) -> list[dict]:
    """Where a layer keeps its tensors: its attributes, and dictionaries among them (of linear attention)."""
    return [vars(layer), *(value for value in vars(layer).values() if isinstance(value, dict))]
