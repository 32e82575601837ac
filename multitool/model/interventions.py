"""What is done to the residual stream while the model reads a prompt with a ghost in it and the tokens that follow.

A vector put in after a layer (``Injection``), a push along a direction (``Push``), a feature held at a value
(``Clamp``). They are plain data, so that they can go to another process; ``AppliedInterventions`` does them to a
running model, by hooks that act for one call and one thread.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multitool.model.ghost_prompt import GhostPrompt
from multitool.model.residual_stream import EMBEDDING, changed, residuals
from multitool.vectors.scan_directions import usual_tokens


@dataclass(frozen=True)
class Push:
    """``x + strength · m · direction`` with m the mean residual norm at the hook (activation addition; Turner et al.
    2023, arXiv:2308.10248)."""

    hook: str
    direction: np.ndarray  # (d_model,) float32
    strength: float


@dataclass(frozen=True)
class Clamp:
    """``x + (decode(z') - decode(z))`` with z the SAE's activations on x, and z' the same but for one feature.

    Without a normalisation of the SAE's inputs that is ``x + (activation - z_i) W_dec[i]``. What the SAE does not
    reconstruct stays in x (Templeton et al. 2024, "Scaling Monosemanticity").
    """

    sae: Any  # hashable, by which whoever runs the model finds the SAE to read with: a store.entries.SaeEntry
    hook: str
    feature: int
    times: float  # its typical maximum
    typical_maximum: float

    @property
    def activation(self) -> float:
        return self.times * self.typical_maximum


@dataclass(frozen=True)
class Injection:
    """The ghost after a layer instead of among the embeddings: at its position the stream becomes ``scale · m · g``,
    or has it added, with m the mean residual norm there and g the ghost's vector.

    As SelfIE (Chen et al. 2024, arXiv:2403.10949) and Patchscopes (Ghandeharioun et al. 2024, arXiv:2401.06102) do.
    Up to that layer the model reads the word that holds the ghost's place.
    """

    layer: int
    replace: bool
    scale: float

    @property
    def hook(self) -> str:
        return f"blocks.{self.layer}.hook_resid_post"


@dataclass(frozen=True)
class Interventions:
    """All that is done in a growth, in this order where the place is the same: injection, pushes, clamp."""

    injection: Injection | None = None
    pushes: tuple[Push, ...] = ()
    clamp: Clamp | None = None
    where: str = "ghost"  # pushes and clamp: a key of recipe.POSITIONS
    prose: tuple[int, ...] = ()  # token ids of a text; mean residual norms are those of its tokens
    spared: tuple[int, ...] = ()  # positions of the prompt that pushes and clamp leave alone


def mean_residual_norm(model, hook: str, prose: tuple[int, ...]) -> float:
    """The mean of ``|x|`` over a text's residuals at ``hook``.

    Without its first token and without tokens out of the ordinary (``scan_directions.usual_tokens``): on these the
    model parks attention, and their residuals can be a hundred times as long.
    """
    norms = residuals(model, hook, input_ids=torch.tensor([prose]))[0, 1:].float().norm(dim=1)
    return float(norms[usual_tokens(norms)].mean())


class FeatureSetter(Protocol):
    """An SAE that can tell what setting a feature changes (``store.encoder.Encoder``)."""

    def change_by_setting(self, x: Tensor, feature: int, activation: float) -> Tensor:
        """(n, d_model) of residuals x (n, d_model)."""


class AppliedInterventions:
    """Interventions, ready to be done to the passes of a running model.

    Args:
        model: a transformers causal LM in eval mode.
        prompt: the one whose positions are meant.
        wanted: what is to be done.
        setter: the SAE that ``wanted.clamp`` names.

    Raises:
        UserError: the model has no such place.
    """

    def __init__(self, model, prompt: GhostPrompt, wanted: Interventions, setter: FeatureSetter | None = None):
        self._model = model
        self._prompt = prompt
        self._where = wanted.where
        self._spared = frozenset(wanted.spared) - {prompt.position}
        self._injection = wanted.injection
        self._edits: list[tuple[str, Callable[[Tensor], Tensor]]] = []  # on (n, d_model)
        self._length = 0.0  # of an injected vector of norm 1
        norms = {hook: mean_residual_norm(model, hook, wanted.prose) for hook in _measured(wanted)}
        if self._injection:
            self._length = self._injection.scale * norms[self._injection.hook]
        for push in wanted.pushes:
            added = push.strength * norms[push.hook] * torch.from_numpy(push.direction)
            self._edits.append((push.hook, partial(_plus, added=added)))
        if wanted.clamp:
            clamp = wanted.clamp
            assert setter is not None
            self._edits.append((clamp.hook, lambda x: x + _like(x, setter.change_by_setting(
                x, clamp.feature, clamp.activation))))

    @property
    def injects(self) -> bool:
        """Whether the ghost's vector goes in after a layer, so that the embeddings are those of a plain prompt."""
        return self._injection is not None

    def embedded(self, embeddings: Tensor, first: int = 0) -> Tensor:
        """What the model is given in the place of ``embeddings``, (batch, positions, d_model), from position ``first``
        on."""
        for hook, edit in self._edits:
            if hook == EMBEDDING:
                embeddings = self._edited(embeddings, edit, first)
        return embeddings

    @contextmanager
    def during(self, first: int, vs: Tensor | None = None) -> Iterator[None]:
        """A pass inside the block goes on with what the interventions make of the stream.

        Args:
            first: the position at which the pass begins.
            vs: (batch, d_model), the ghost of each row, where the pass begins with the prompt.
        """
        with ExitStack() as stack:
            if self._injection and vs is not None:
                stack.enter_context(changed(
                    self._model, self._injection.hook, partial(self._injected, vs=vs, replace=self._injection.replace)
                ))
            for hook, edit in self._edits:
                if hook != EMBEDDING and self._reaches(first):
                    stack.enter_context(changed(self._model, hook, partial(self._edited, edit=edit, first=first)))
            yield

    def _reaches(self, first: int) -> bool:
        return self._where == "all" or first == 0

    def _injected(self, stream: Tensor, vs: Tensor, replace: bool) -> Tensor:
        stream, position = stream.clone(), self._prompt.position
        rows = _like(stream, self._length * vs)
        stream[:, position] = rows if replace else stream[:, position] + rows
        return stream

    def _edited(self, stream: Tensor, edit: Callable[[Tensor], Tensor], first: int) -> Tensor:
        """The stream with its positions from ``first`` on edited, those that are meant."""
        if not self._reaches(first):
            return stream
        meant = self._positions(first, stream.shape[1])
        stream = stream.clone()
        part = stream[:, meant]
        stream[:, meant] = edit(part.flatten(0, 1)).view(part.shape)
        return stream


    def _positions(self, first: int, n: int) -> list[int]:
        """Those of a pass of ``n`` positions from ``first`` on that are edited, counted from ``first``."""
        length = len(self._prompt.token_ids)
        meant = {
            "ghost": range(self._prompt.position, self._prompt.position + 1),
            "prompt": range(length),
            "all": range(first + n),
        }[self._where]
        return [position - first for position in meant if position >= first and position not in self._spared]


def _plus(stream: Tensor, added: Tensor) -> Tensor:
    return stream + _like(stream, added)


def _like(stream: Tensor, rows: Tensor) -> Tensor:
    """The rows where the stream is, in its precision."""
    return rows.to(stream.device, stream.dtype)


def _measured(wanted: Interventions) -> set[str]:
    """The hooks at which a mean residual norm is needed."""
    hooks = {push.hook for push in wanted.pushes}
    return hooks | ({wanted.injection.hook} if wanted.injection else set())
