"""Directions carried back from a place in the residual stream to the token embeddings, by the layers' own Jacobian.

With ``r(e)`` the residual at the place where a token with embedding ``e`` stands behind what begins a text, ``u(x) =
x/|x|`` and base tokens ``b``, the direction ``w`` becomes

    mean over b of ∂/∂e [ u(r(e)) · w ]  at e = E_b,

the way in which an embedding must change for the stream to turn towards ``w``. It is linear in ``w``: of the unit
directions it is the transpose of the average Jacobian. At ``hook_embed`` nothing is normalised, so that it is ``w``
itself (times the factor by which some models multiply their embeddings).
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from multitool.model.finite import finite
from multitool.model.layer_inputs import scaled_rows
from multitool.model.residual_stream import EMBEDDING, stream, tokens_for_way_back
from multitool.model.tasks import Base, PullbackTask

# Directions in one backward pass, where the memory suffices; for each, all base tokens go through the layers.
_AT_ONCE = {"cpu": 1, "cuda": 16}


def pull_back(model, task: PullbackTask) -> Iterator[np.ndarray | None]:
    """One answer: every direction carried back, (n, d_model) float32; before it None, where it can be left."""
    pullback = Pullback(model, task.base, len(task.directions))
    found = []
    for part in torch.from_numpy(task.directions).split(pullback.at_once):
        found.append(pullback.of(part))
        yield None
    yield torch.cat(found).numpy()


class Pullback:
    """The way from the embeddings of base tokens to a place, which is run once, and back any number of times.

    Args:
        model: a transformers causal LM in eval mode, whose weights need no gradient.
        base: the place, and the base tokens.
        n: how many directions are to be carried back, if that is known.

    Raises:
        UserError: the model has no such place.
    """

    def __init__(self, model, base: Base, n: int | None = None):
        module = model.get_input_embeddings()
        device = module.weight.device
        length = 1 if base.place.bos_id is None else 2
        fitting = tokens_for_way_back(model) // (length * len(base.token_ids))
        most = _AT_ONCE["cpu" if device.type == "cpu" else "cuda"]
        self.at_once = max(1, min(most, fitting, most if n is None else n))
        ids = torch.tensor(base.token_ids * self.at_once, device=device)
        self._n = len(base.token_ids)
        with torch.inference_mode(False), torch.enable_grad():
            self._E = module.weight[ids].detach().clone().requires_grad_()
            ids, embeddings = ids[:, None], scaled_rows(module, self._E)[:, None]
            if base.place.bos_id is not None:
                before = torch.full_like(ids, base.place.bos_id)
                ids, embeddings = torch.cat([before, ids], dim=1), torch.cat([module(before), embeddings], dim=1)
            # In one go: what some layers do for a token behind a cache has no gradient.
            r = stream(model, base.place.hook, input_ids=ids, inputs_embeds=embeddings)[:, -1].float()
            finite(r.norm(dim=1))
            self._u = r if base.place.hook == EMBEDDING else torch.nn.functional.normalize(r, dim=1)

    def of(self, directions: Tensor) -> Tensor:
        """At most ``at_once`` directions (n, d_model) carried back: (n, d_model) float32 on the CPU."""
        wanted = torch.zeros(self.at_once, directions.shape[1])
        wanted[: len(directions)] = directions
        rows = wanted.to(self._u.device).repeat_interleave(self._n, dim=0)
        gradient, = torch.autograd.grad(self._u, self._E, rows, retain_graph=True)
        return finite(gradient.float().view(self.at_once, self._n, -1).mean(1)[: len(directions)]).cpu()
