"""What a feature writes: how a push along a direction changes the probability of every token.

Source: TokenChange, of Gur-Arieh et al., "Enhancing Automated Interpretability with Output-Centric Feature
Descriptions" (2025, arXiv:2501.08319); the push is that of ``model.interventions.Push``.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from multitool.model.finite import finite
from multitool.model.interventions import mean_residual_norm
from multitool.model.logit_lens import lens_logits
from multitool.model.residual_stream import last_residuals, padded
from multitool.model.tasks import ChangeTask


@torch.inference_mode()
def change_tokens(model, task: ChangeTask) -> Iterator[np.ndarray | None]:
    """One answer: of each direction the change of every token's log-probability in nats, the mean over prompts and
    strengths, (n, V) float32; before it None, where it can be left.

    With ``m`` the mean residual norm at the hook on the task's prose, ``x + strength · m · direction`` at every
    position of a prompt but its first, and the tokens' log-probabilities behind its last one; less the same without a
    push.

    Raises:
        UserError: the model has no such place, or no logit lens.
        NotFiniteError: the model does not compute finite numbers.
    """
    length = mean_residual_norm(model, task.place.hook, task.prose)
    before = () if task.place.bos_id is None else (task.place.bos_id,)
    ids, mask = padded([before + prompt for prompt in task.prompts])
    ends = mask.sum(dim=1) - 1

    def log_probs(push: Tensor) -> Tensor:
        def pushed(stream: Tensor) -> Tensor:
            stream = stream.clone()
            stream[:, 1:] += push.to(stream.device, stream.dtype)
            return stream

        last = last_residuals(model, task.place.hook, pushed, input_ids=ids, attention_mask=mask)
        last = last[torch.arange(len(ids), device=last.device), ends.to(last.device)]
        return finite(lens_logits(model, last).log_softmax(dim=-1))

    unpushed = log_probs(torch.zeros(task.directions.shape[1]))
    yield None
    changes = []
    for direction in torch.from_numpy(task.directions):
        total = torch.zeros_like(unpushed[0])
        for strength in task.strengths:
            total += (log_probs(strength * length * direction) - unpushed).mean(dim=0)
            yield None
        changes.append(total / len(task.strengths))
    yield torch.stack(changes).cpu().numpy()
