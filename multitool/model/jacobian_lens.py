"""The Jacobian lens: where a direction at a hook has got to, on average over running text, after the last layer.

Source: Gurnee et al., "Verbalizable Representations Form a Global Workspace in Language Models" (2026), whose estimator
this is. The logit lens reads a direction as if the layers after the hook did nothing; here it is first carried through
them, by the average of their Jacobian. The weights need no gradient and are never written.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from multitool.model.finite import finite
from multitool.model.residual_stream import last_residuals, padded, tokens_for_way_back

# At the first positions of a text the model parks attention, and its residuals are out of the ordinary; from the last
# one no token follows.
SKIPPED_FIRST, SKIPPED_LAST = 16, 1
_ROWS_AT_LEAST = 16  # that share a forward pass, where the texts are too many to keep all of it


class JacobianLens:
    """Rows of the average Jacobian ``J`` from ``hook`` to the last residual, before the final norm.

    ``J = mean over texts and over p of sum over p' >= p of d r[p'] / d x[p]``, with ``x`` the stream at the hook, ``r``
    the last residual, and ``p``, ``p'`` the positions of a text from ``SKIPPED_FIRST`` on but for the last one. (The
    mean over all texts' ``p`` together: a longer text counts for more.) So a direction ``d`` at the hook becomes
    ``J @ d``: ``J[i, j]`` tells what entry j there does to entry i here.

    By vector-Jacobian products: row i of ``J`` is the gradient of entry i of ``r``, summed over ``p'``, by ``x``.

    Args:
        model: a transformers causal LM in eval mode.
        texts: token ids, each with what stands before a text. Those too short to have a ``p`` do not count.
        graph_bytes: memory for a forward pass, about; None: what suits the device.

    Raises:
        UserError: the model has no such place.
        ValueError: all texts are too short.
    """

    def __init__(self, model, hook: str, texts: Sequence[Sequence[int]], *, graph_bytes: int | None = None):
        self._model, self._hook = model, hook
        texts = sorted((text for text in texts if len(text) > SKIPPED_FIRST + SKIPPED_LAST), key=len)
        if not texts:
            raise ValueError(f"no text has more than {SKIPPED_FIRST + SKIPPED_LAST} tokens")
        weight = model.get_input_embeddings().weight
        self._device = weight.device
        tokens = tokens_for_way_back(model, graph_bytes)
        longest = len(texts[-1])
        together = int(max(1, min(len(texts), tokens // longest)))
        self._groups = [texts[first : first + together] for first in range(0, len(texts), together)]
        self._copies = 1
        if len(self._groups) == 1:
            self._copies = int(max(1, min(weight.shape[1], tokens // (longest * together))))
        self.at_once = self._copies if len(self._groups) == 1 else max(self._copies, _ROWS_AT_LEAST)
        self._n_positions = sum(len(text) - SKIPPED_FIRST - SKIPPED_LAST for text in texts)
        self._graph = self._forward(self._groups[0])  # it is kept if it is the only one

    def rows(self, rows: Sequence[int]) -> Tensor:
        """Some rows, (n, d_model) in float32 on the CPU.

        Raises:
            NotFiniteError: the model does not compute finite numbers.
        """
        total = torch.zeros(len(rows), self._graph[0].shape[-1])
        for texts in self._groups:
            stream, last, counted = self._graph if len(self._groups) == 1 else self._forward(texts)
            for first in range(0, len(rows), self._copies):
                chosen = rows[first : first + self._copies]
                total[first : first + len(chosen)] += self._back(stream, last, counted, chosen)
        return finite(total / self._n_positions)

    def _back(self, stream: Tensor, last: Tensor, counted: Tensor, rows: Sequence[int]) -> Tensor:
        """One backward pass: each copy of the texts gives a row, (n, d_model), summed over texts and positions."""
        with torch.inference_mode(False):
            cotangents = torch.zeros_like(last)
            for copy, row in enumerate(rows):
                cotangents[copy, :, :, row] = counted
            gradient, = torch.autograd.grad(last, stream, cotangents, retain_graph=True)
            return (gradient[: len(rows)].float() * counted[..., None]).sum(dim=(1, 2)).cpu()

    def _forward(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """The stream at the hook and the last residual that depends on it, (copies, texts, positions, d_model), and
        which positions count, (texts, positions)."""
        ids, mask = padded(texts)
        counted = torch.zeros(ids.shape)
        for row, text in enumerate(texts):
            counted[row, SKIPPED_FIRST : len(text) - SKIPPED_LAST] = 1
        shape = (self._copies, *ids.shape, -1)
        leaves = []

        def leaf(stream: Tensor) -> Tensor:
            # A copy: what was computed under inference mode takes no gradient.
            leaves.append(stream.detach().clone().view(shape).requires_grad_())
            return leaves[0].view(stream.shape)

        ids, mask = ids.repeat(self._copies, 1), mask.repeat(self._copies, 1)
        # Not for longer than this: a generator's caller has a mode of its own.
        with torch.inference_mode(False), torch.enable_grad():
            last = last_residuals(self._model, self._hook, leaf, input_ids=ids, attention_mask=mask)
            last = last.view(shape)
        return leaves[0], last, counted.to(self._device, last.dtype)
