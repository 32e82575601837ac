"""A layer of a key-value cache with room for one more token.

Apart from ``caches``, since it cannot be defined without importing transformers, which takes seconds.
"""

from torch import Tensor
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values with a place behind them, where the next token's are written; nothing is copied for it."""

    def __init__(self, keys: Tensor, values: Tensor):
        """
        Args:
            keys: (paths, length + 1, heads, d_head); the last place may hold anything. So may that of ``values``.
        """
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._with_room = keys.transpose(1, 2), values.transpose(1, 2)
        self.keys, self.values = (states[:, :, :-1] for states in self._with_room)

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        self.keys, self.values = self._with_room
        self.keys[:, :, -1:] = key_states
        self.values[:, :, -1:] = value_states
        return self.keys, self.values
