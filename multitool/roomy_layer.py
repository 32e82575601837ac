"""A layer of a key-value cache with room for further tokens.

Apart from ``caches``, since it cannot be defined without importing transformers, which takes seconds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

_ROOM = 4  # tokens that a layer can grow by before it is copied


class RoomyLayer(DynamicLayer):
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
