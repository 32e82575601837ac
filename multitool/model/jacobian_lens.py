"""The Jacobian lens: where a direction at a hook has got to, on average over running text, behind the last layer.

Source: Gurnee et al., "Verbalizable Representations Form a Global Workspace in Language Models" (2026), whose estimator
this is. The logit lens reads a direction as if the layers behind the hook did nothing; here it is first carried through
them, by the average of their Jacobian. The weights need no gradient and are never written.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from multitool.model.residual_stream import last_residuals

# At the first positions of a text the model parks attention, and its residuals are out of the ordinary; from the last
# one no token follows.
SKIPPED_FIRST, SKIPPED_LAST = 16, 1
TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 8192}  # in a backward pass; bounds the memory


def lens_rows(
    model, hook: str, texts: Sequence[Sequence[int]], rows: Sequence[int], *, tokens_at_once: int | None = None
) -> Iterator[Tensor | None]:
    """Rows of the average Jacobian ``J`` from ``hook`` to the last residual, before the final norm.

    ``J = mean over texts and over p of sum over p' >= p of d r[p'] / d x[p]``, with ``x`` the stream at the hook, ``r``
    the last residual, and ``p``, ``p'`` the positions of a text from ``SKIPPED_FIRST`` on but for the last one. (The
    mean over all texts' ``p`` together: a longer text counts for more.) So a direction ``d`` at the hook becomes
    ``J @ d``: ``J[i, j]`` tells what entry j there does to entry i here.

    By vector-Jacobian products: row i of ``J`` is the gradient of entry i of ``r``, summed over ``p'``, by ``x``. Every
    text is run in some copies at a time, each of which gives a row.

    Args:
        model: a transformers causal LM in eval mode.
        texts: token ids, each with what stands before a text.
        rows: which of them.
        tokens_at_once: how many tokens go through the layers together.

    Yields:
        None after every backward pass, where it can be left; at last the rows, (len(rows), d_model) in float32, on the
        CPU.

    Raises:
        UserError: the model has no such place.
        ValueError: all texts are too short.
    """
    device = model.get_input_embeddings().weight.device
    limit = tokens_at_once or TOKENS_AT_ONCE["cpu" if device.type == "cpu" else "cuda"]
    total, n_positions = torch.zeros(0), 0
    for text in texts:
        counted = slice(SKIPPED_FIRST, len(text) - SKIPPED_LAST)
        n = len(range(*counted.indices(len(text))))
        if not n:
            continue
        n_positions += n
        copies = max(1, min(len(rows), limit // len(text)))
        found = []
        # Not the whole generator: between two answers the thread's mode is its caller's.
        with torch.inference_mode(False), torch.enable_grad():
            stream, last = _graph(model, hook, torch.tensor([text] * copies, device=device))
        for first in range(0, len(rows), copies):
            chosen = rows[first : first + copies]
            with torch.inference_mode(False):
                cotangents = torch.zeros_like(last)
                cotangents[torch.arange(len(chosen)), counted, chosen] = 1
                gradient, = torch.autograd.grad(last, stream, cotangents, retain_graph=True)
                found.append(gradient[: len(chosen), counted].float().sum(dim=1).cpu())
            yield None
        part = torch.cat(found)
        total = total + part if len(total) else part
    if not n_positions:
        raise ValueError(f"no text has more than {SKIPPED_FIRST + SKIPPED_LAST} tokens")
    yield total / n_positions


def _graph(model, hook: str, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The stream at the hook, as a leaf, and the last residual that depends on it."""
    leaves = []

    def leaf(stream: Tensor) -> Tensor:
        # A copy: what was computed under inference mode takes no gradient.
        leaves.append(stream.detach().clone().requires_grad_())
        return leaves[0]

    last = last_residuals(model, hook, leaf, input_ids=input_ids)
    return leaves[0], last
