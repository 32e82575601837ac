"""What a model keeps of the tokens of many paths, gathered into a cache for each forward pass.

Knows what transformers' caches consist of. Caches that are given are never changed.
"""

import copy
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class PathCache:
    """Key-value caches of the paths of one level, a row each; ``turn`` replaces them by those of the next level.

    Where a layer keeps the keys and values of all tokens, each token is held once, however many paths go through it.
    Of layers of other kinds (sliding windows that paths grow out of, linear attention) every path has its own state.
    """

    def __init__(self, longest: int):
        """
        Args:
            longest: how many tokens a path can have, the prompt's included.
        """
        self._longest = longest
        self._cache: Any = None  # the first one, for what it has beside its layers
        self._layers: list[_Tokens | _States] = []
        self._n_tokens = 0
        self._places = torch.empty(0)  # (rows, length): each path's tokens, by their places among those held
        self._next: list[Tensor] = []

    def add(self, cache, n_paths: int, n_new: int, rows: np.ndarray | None = None) -> None:
        """The paths of a forward pass, as the next rows of the level to come.

        Args:
            cache: as the pass left it.
            n_new: how many tokens of each path the pass ran.
            rows: (n_paths,), which rows the paths continue; None: they begin with what the pass ran.
        """
        if self._cache is None:
            self._cache = copy.copy(cache)
            self._layers = [_kept(layer, self._longest) for layer in cache.layers]
        for kept, layer in zip(self._layers, cache.layers, strict=True):
            kept.add(layer, n_paths, n_new)
        new = torch.arange(self._n_tokens, self._n_tokens + n_paths * n_new).view(n_paths, n_new)
        self._n_tokens += n_paths * n_new
        self._next.append(new if rows is None else torch.cat([self._places[rows], new], dim=1))

    def turn(self) -> None:
        """Go on to the next level: what was added."""
        self._places, self._next = torch.cat(self._next), []
        for kept in self._layers:
            kept.turn()

    def gathered(self, rows: np.ndarray, device: torch.device, n_new: int = 1):
        """A cache of ``rows`` (n,), rising from call to call, that the model can grow once.

        Args:
            device: where the model is.
            n_new: by how many tokens.
        """
        whole = copy.copy(self._cache)
        room = torch.zeros(len(rows), n_new, dtype=torch.int64)
        # To the device once, and not by every layer: each such copy waits for it.
        places = torch.cat([self._places[rows], room], dim=1).to(device)
        whole.layers = [kept.gathered(rows, places, n_new) for kept in self._layers]
        return whole


def repeated(cache, n: int):
    """A cache of one path as one of ``n`` equal paths, for the model to grow."""
    whole = copy.copy(cache)
    whole.layers = [_reordered(layer, np.zeros(n, dtype=np.int64)) for layer in cache.layers]
    return whole


def cache_bytes(cache) -> int:
    """The memory that a cache's tensors take."""
    states = [state for layer in cache.layers for held in _dictionaries(layer) for state in held.values()]
    return sum(state.nbytes for state in states if isinstance(state, Tensor))


def _kept(layer, longest: int) -> "_Tokens | _States":
    in_window = type(layer) is DynamicSlidingWindowLayer and longest < layer.sliding_window
    return _Tokens() if (type(layer) is DynamicLayer or in_window) and layer.is_initialized else _States()


class _Tokens:
    """The keys and values of all tokens of a layer."""

    def __init__(self):
        self._keys, self._values = _Rows(), _Rows()

    def add(self, layer, n_paths: int, n_new: int) -> None:
        self._keys.add(layer.keys[:, :, -n_new:].transpose(1, 2).flatten(0, 1))
        self._values.add(layer.values[:, :, -n_new:].transpose(1, 2).flatten(0, 1))

    def turn(self) -> None:
        pass

    def gathered(self, rows: np.ndarray, places: Tensor, n_new: int):
        return GatheredLayer(partial(self._at, places), places.shape[1] - n_new)

    def _at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        return self._keys.at(places), self._values.at(places)


class _Rows:
    """A tensor that rows are added to."""

    def __init__(self):
        self._held, self._n = torch.empty(0), 0

    def add(self, rows: Tensor) -> None:
        if not self._n:
            self._held = rows.new_empty(0, *rows.shape[1:])
        wanted = self._n + len(rows)
        if wanted > len(self._held):
            wider = rows.new_empty(max(wanted, len(self._held) * 3 // 2), *rows.shape[1:])
            wider[: self._n] = self._held[: self._n]
            self._held = wider
        self._held[self._n : wanted] = rows
        self._n = wanted

    def at(self, places: Tensor) -> Tensor:
        """(n, length, …) for ``places`` (n, length)."""
        chosen = self._held.index_select(0, places.flatten().to(self._held.device))
        return chosen.view(*places.shape, *chosen.shape[1:])


class _States:
    """The states of a layer of any kind, as the passes left them."""

    def __init__(self):
        self._passes: deque[tuple[int, Any]] = deque()  # (paths, layer)
        self._first = 0  # the row at which they begin
        self._next: deque[tuple[int, Any]] = deque()

    def add(self, layer, n_paths: int, n_new: int) -> None:
        self._next.append((n_paths, layer))

    def turn(self) -> None:
        self._passes, self._first, self._next = self._next, 0, deque()

    def gathered(self, rows: np.ndarray, places: Tensor, n_new: int):
        parts = []
        while True:
            n_paths, layer = self._passes[0]
            inside = rows[rows < self._first + n_paths] - self._first
            parts.append(_reordered(layer, inside))
            rows = rows[len(inside) :]
            if not len(rows):
                break
            # The rest begins further on, and nothing before it is needed again.
            self._passes.popleft()
            self._first += n_paths
        return _joined(parts)


def _joined(layers: list):
    """One layer of the paths of several, the first of which it is."""
    whole, *others = layers
    if others:
        for kept, *more in zip(_dictionaries(whole), *map(_dictionaries, others), strict=True):
            for name, state in kept.items():
                if isinstance(state, Tensor) and state.ndim > 2:  # (paths, …); others are the same for all paths
                    kept[name] = torch.cat([state, *(held[name] for held in more)])
    return whole


def _reordered(layer, rows: np.ndarray):
    """Those rows of a layer of any kind."""
    twin = copy.copy(layer)
    for name, value in vars(twin).items():
        if isinstance(value, dict):
            setattr(twin, name, dict(value))
    twin.reorder_cache(torch.from_numpy(rows))
    return twin


def _dictionaries(layer) -> list[dict]:
    """Where a layer keeps its tensors: its attributes, and dictionaries among them (of linear attention)."""
    return [vars(layer), *(value for value in vars(layer).values() if isinstance(value, dict))]


class GatheredLayer(DynamicLayer):
    """Keys and values that are gathered when the model comes to the layer, and let go when it leaves it.

    So those of one layer lie in memory at a time, in the same place as the last one's: a processor finds them in its
    own caches, and gets no new memory for every pass.
    """

    def __init__(self, gather: Callable[[], tuple[Tensor, Tensor]], length: int):
        """
        Args:
            gather: the keys and the values, (paths, length + new, heads, d_head) each. The places of the new tokens
                may hold anything; what is given is written to.
            length: how many tokens there are.
        """
        super().__init__()
        self._gather, self._length, self.is_initialized = gather, length, True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        # What is new is all that is kept of them: ``PathCache`` has the rest.
        self.keys, self.values = key_states, value_states
        keys, values = (states.transpose(1, 2) for states in self._gather())
        keys[:, :, self._length :], values[:, :, self._length :] = key_states, value_states
        return keys, values

    def get_seq_length(self) -> int:
        return self._length + (0 if self.keys is None else self.keys.shape[-2])
