"""The job of a text: where does a feature fire in it?"""

from collections.abc import Sequence
from functools import partial

import torch

from multitool.errors import UserError
from multitool.jobs.features import Resolved, check_reads, resolve
from multitool.jobs.steps import Ask, Job, Prepare
from multitool.model.subject import Subject, check_tokens
from multitool.model.tasks import Place, ReadTask, Text
from multitool.recipes.recipe import VectorRecipe
from multitool.store.entries import SaeEntry
from multitool.store.library import Library

MOST_TEXT_TOKENS = 1000
LONGEST_TEXT = 20_000  # characters

Activity = list[tuple[str, float]]  # token by token: its text, and how strongly the feature fires there


def text_job(library: Library, recipe: VectorRecipe, text: str, *, model: str | None = None) -> Job[Activity]:
    """Where a feature fires in a text.

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the recipe is of several features or cannot be followed, or the text is too long.
    """
    recipe.single_feature()
    target = yield Prepare(partial(resolve, library, recipe, model))
    task, encoder = yield Prepare(lambda: (_activity_task(target, text), library.encoder(target.sae.entry)))
    (residuals,), = yield Ask((task,), "text")
    fires = encoder.encode_feature(torch.from_numpy(residuals), target.index)
    texts = target.subject.token_texts
    return [(texts[token_id], value) for token_id, value in zip(task.texts[0], fires.tolist(), strict=True)]


def _activity_task(target: Resolved, text: str) -> ReadTask:
    check_reads(target)
    return read_task(target.sae.entry, target.subject, [text_tokens(target.subject, text)])


def check_length(text: str) -> None:
    """Raises UserError if a text has nothing to read, or is longer than any that is read."""
    if not text.strip():
        raise UserError("The text is empty. Give one to read.")
    if len(text) > LONGEST_TEXT:
        raise UserError(f"The text has {len(text):,} characters; it can have at most {LONGEST_TEXT:,}. Shorten it.")


def text_tokens(subject: Subject, text: str) -> Text:
    """A text as a model reads it. Raises UserError if it is too long or has a token that the model does not have."""
    check_length(text)
    ids = tuple(subject.tokenizer(text, add_special_tokens=False)["input_ids"])
    most = min(MOST_TEXT_TOKENS, (subject.max_length or MOST_TEXT_TOKENS + 1) - 1)  # one stands before them
    if len(ids) > most:
        raise UserError(f"The text has {len(ids):,} tokens; it can have at most {most:,}. Shorten it.")
    check_tokens(subject, ids, "The text")
    return ids


def read_task(entry: SaeEntry, subject: Subject, texts: Sequence[Text]) -> ReadTask:
    """Texts to be read where an SAE reads."""
    place = Place(entry.hook, subject.bos_id)
    return ReadTask(model=subject.name, folder=subject.folder, place=place, texts=list(texts))
