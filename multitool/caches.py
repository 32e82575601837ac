"""Key-value caches of many paths: rows gathered from several of them, with room to grow.

Knows what transformers' caches consist of. What is given is never changed.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 4  # tokens that a layer can grow by before it is copied


def gathered(parts: Sequence[tuple[Cache, Tensor]]) -> Cache:
    """One cache of rows of several that are as long as each other; the model can grow it.

    Args:
        parts: caches, each with the rows to take from it, (n,).
    """
    whole = copy.copy(parts[0][0])
    whole.layers = [
        _gathered_layer([(cache.layers[position], rows) for cache, rows in parts])
        for position in range(len(whole.layers))
    ]
    return whole


def cache_bytes(cache: Cache) -> int:
    """The memory that a cache's tensors take."""
    states = [state for layer in cache.layers for held in _dictionaries(layer) for state in held.values()]
    return sum(state.nbytes for state in states if isinstance(state, Tensor))


def _gathered_layer(parts: Sequence[tuple[object, Tensor]]):
    if type(parts[0][0]) in (DynamicLayer, _Roomy):
        return _Roomy(parts)
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


class _Roomy(DynamicLayer):
    """Keys and values at the beginning of longer tensors: a further token is written there, and nothing copied."""

    def __init__(self, parts: Sequence[tuple[DynamicLayer, Tensor]]):
        """
        Args:
            parts: layers, each with the rows to take from it, (n,).
        """
        super().__init__()
        layers, rows = zip(*parts, strict=True)
        self.dtype, self.device, self.is_initialized = layers[0].dtype, layers[0].device, True
        self._length = layers[0].get_seq_length()
        self._wide_keys = self._gathered([getattr(layer, "_wide_keys", layer.keys) for layer in layers], rows)
        self._wide_values = self._gathered([getattr(layer, "_wide_values", layer.values) for layer in layers], rows)
        self._show()

    def _gathered(self, states: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        _, n_heads, there, d_head = states[0].shape
        room = there if there > self._length else self._length + _ROOM
        wide = states[0].new_empty(sum(map(len, rows)), n_heads, room, d_head)
        for target, state, chosen in zip(wide.split([len(part) for part in rows]), states, rows, strict=True):
            if room == there:
                torch.index_select(state, 0, chosen, out=target)
            else:
                target[:, :, :there] = state.index_select(0, chosen)
        return wide

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        first, self._length = self._length, self._length + key_states.shape[-2]
        self._wide_keys[:, :, first : self._length] = key_states
        self._wide_values[:, :, first : self._length] = value_states
        self._show()
        return self.keys, self.values

    def _show(self) -> None:
        self.keys = self._wide_keys[:, :, : self._length]
        self.values = self._wide_values[:, :, : self._length]
