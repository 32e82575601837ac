"""The job of steering: a text is continued with and without a feature, and it is told where that breaks the text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch

from multitool._version import __version__
from multitool.errors import UserError
from multitool.evidence.breaking import Wording, caution, repetition
from multitool.jobs.features import Resolved, resolve
from multitool.jobs.progress import Progress
from multitool.jobs.steering import prose, pushes_along
from multitool.jobs.steps import Grow, Job, Prepare
from multitool.jobs.text import text_tokens
from multitool.model.tasks import SteerTask, Written
from multitool.recipes.captions import feature_told
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.recipe import VectorRecipe
from multitool.store.encoder import Encoder
from multitool.store.library import Library
from multitool.text import html_table, join_tokens

_OF_VECTOR = ("sae", "feature", "vector", "vector_name")  # settings
_COLUMNS = ("strength", "text", "log_probability", "repetition", "caution")


def steer_job(
    library: Library, vector_recipe: VectorRecipe, recipe: SteerRecipe, *, model: str | None = None
) -> Job["SteeredTexts"]:
    """A text continued, unsteered and under each of the recipe's strengths. Shorter where its time was up.

    Args:
        vector_recipe: its SAE and features are steered along, whatever its weights.
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: a recipe cannot be followed.
    """
    target = yield Prepare(partial(resolve, library, vector_recipe, model))
    prepared = yield Prepare(partial(_prepared, target, recipe))
    return (yield Grow(prepared.task, prepared.result, prepared.result(Written((), (), {}))))


@dataclass(frozen=True)
class SteeredText:
    """What the model wrote behind a text at one strength."""

    strength: float  # in mean residual norms; 0: unsteered
    tokens: tuple[str, ...]  # each as it adds to the text
    token_ids: tuple[int, ...]
    ended: bool  # the model ended the text by itself
    # Once all is written:
    log_probability: float | None = None  # nats a token, the mean under the unsteered model; None also where none is
    repetition: float | None = None  # share of runs of four tokens that have occurred before
    caution: str = ""  # where the steering breaks it, in words (``evidence.breaking``); empty where it does not
    activations: tuple[float, ...] | None = None  # of the feature on each token as the unsteered model reads it

    @property
    def text(self) -> str:
        return join_tokens(self.tokens)

    def to_dict(self) -> dict:
        """For JSON."""
        told = asdict(self) | {"text": self.text}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}


@dataclass(frozen=True)
class SteeredTexts:
    """A text with its continuations. A notebook shows them as a table.

    >>> rain = mt.VectorRecipe(sae="demo/blocks.6.hook_resid_post", feature=150)
    >>> found = mt.continuations(library, rain, mt.SteerRecipe(text="I think that", strengths=(0.4,), length=8))
    >>> [continued.strength for continued in found.continuations]
    [0.0, 0.4]
    """

    settings: dict  # the recipes
    continuations: tuple[SteeredText, ...]  # the unsteered one, then in the order of the strengths
    norms: dict[str, float]  # the mean residual norm at each hook, by which strengths are multiplied
    complete: bool  # False while it is written, or when its time was up

    @property
    def progress(self) -> Progress:
        """How far it is."""
        written = max((len(one.tokens) for one in self.continuations), default=0)
        return Progress("Writing", written, self.settings["length"], "tokens")

    def _repr_html_(self) -> str:
        return html_table(
            f"{feature_told(self.settings)}: “{self.settings['text']}” continued", _COLUMNS,
            [[getattr(continued, column) for column in _COLUMNS] for continued in self.continuations],
        )

    def to_dict(self) -> dict:
        """For JSON."""
        return {
            "schema": "sae-multitool/continuations/1",
            "settings": self.settings,
            "norms": self.norms,
            "complete": self.complete,
            "continuations": [continued.to_dict() for continued in self.continuations],
        }


@dataclass(frozen=True)
class _Prepared:
    task: SteerTask
    settings: dict
    token_texts: Sequence[str]
    encoder: Encoder | None  # to tell what fires; None where that cannot be told
    feature: int

    def result(self, written: Written) -> SteeredTexts:
        """What there is of it."""
        texts = [
            SteeredText(strength, tuple(self.token_texts[token_id] for token_id in token_ids), token_ids, ended)
            for strength, token_ids, ended in zip(self.task.strengths, written.token_ids, written.ended, strict=False)
        ]
        if written.log_probs is not None:
            texts = self._judged(texts, written)
        return SteeredTexts(self.settings, tuple(texts), written.norms, written.done)

    def _judged(self, texts: Sequence[SteeredText], written: Written) -> list[SteeredText]:
        assert written.log_probs is not None
        wordings = [
            Wording(float(log_probs.mean()) if len(log_probs) else None, repetition(text.token_ids))
            for text, log_probs in zip(texts, written.log_probs, strict=True)
        ]
        return [
            replace(
                text, log_probability=wording.log_probability, repetition=wording.repetition,
                caution=caution(wording, wordings[0]), activations=fires,
            )
            for text, wording, fires in zip(texts, wordings, self._activations(written), strict=True)
        ]

    def _activations(self, written: Written) -> list[tuple[float, ...] | None]:
        if self.encoder is None or written.residuals is None:
            return [None] * len(written.token_ids)
        return [
            tuple(self.encoder.encode_feature(torch.from_numpy(rows), self.feature).tolist()) if len(rows) else ()
            for rows in written.residuals
        ]


def _prepared(target: Resolved, recipe: SteerRecipe) -> _Prepared:
    subject, text = target.subject, text_tokens(target.subject, recipe.text)
    before = () if subject.bos_id is None else (subject.bos_id,)
    token_ids = before + text
    if subject.max_length and len(token_ids) + recipe.length > subject.max_length:
        raise UserError(
            f"The text has {len(text)} tokens; with {recipe.length} more that is beyond the {subject.max_length} that "
            "the model allows. Shorten the text."
        )
    encoder = _encoder(target)
    task = SteerTask(
        model=subject.name,
        folder=subject.folder,
        token_ids=token_ids,
        pushes=pushes_along(target, 1.0, instead="Use another one."),
        strengths=(0.0, *recipe.strengths),
        spared=tuple(i for i, token_id in enumerate(token_ids) if i == 0 or token_id in subject.special_ids),
        prose=prose(subject),
        length=recipe.length,
        end_ids=tuple(np.flatnonzero(subject.ends(None)).tolist()),
        temperature=recipe.temperature,
        seed=recipe.seed,
        hook=target.sae.entry.hook if encoder else None,
    )
    vector = target.recipe
    told = vector.settings()
    settings = {"model": subject.name} | {name: told[name] for name in _OF_VECTOR if name in told} | asdict(recipe)
    settings |= {"strengths": list(recipe.strengths), "dtype": target.precision, "version": __version__}
    return _Prepared(task, settings, subject.token_texts, encoder, target.terms[0].index)


def _encoder(target: Resolved) -> Encoder | None:
    """What tells where the recipe's one feature fires; None of several, or of an SAE whose activations are not read."""
    if len(target.terms) > 1:
        return None
    try:
        return target.library.encoder(target.sae.entry)
    except UserError:
        return None
