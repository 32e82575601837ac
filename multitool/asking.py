"""What evidence takes of the model: definitions read as plain text, and a known tree under other ghosts.

Tasks are plain data, as those of growing are, and so are the answers: they can go to another process and back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from multitool.continuations import Continuations, ghost_embeddings
from multitool.growth import grow_forest
from multitool.interventions import Changes
from multitool.likelihoods import path_log_probs
from multitool.residuals import residuals
from multitool.task import GrowthTask
from multitool.tree import Tree

_GHOSTS_AT_ONCE = 64  # trees that grow together; bounds the memory that their caches take
_TEXTS_AT_ONCE = 64

Text = tuple[int, ...]  # token ids


@dataclass(frozen=True)
class Place:
    """Where in the model an SAE reads, and what stands before a text there."""

    hook: str
    bos_id: int | None


@dataclass(frozen=True, kw_only=True)
class _Task:
    model: str  # its name, by which a loaded one is kept
    folder: Path  # where its files lie
    place: Place
    seconds: float | None = None  # time to spend


@dataclass(frozen=True, kw_only=True)
class AskTask(_Task):
    """What the model says of many ghosts."""

    growth: GrowthTask  # its ``v`` are the rows of all ghosts, (n, d_model), or what is injected of each
    n_definitions: int


@dataclass(frozen=True)
class Asked:
    """What the model says of one ghost."""

    tree: Tree
    texts: list[Text]  # its most probable definitions
    residuals: list[np.ndarray]  # of each text, (tokens, d_model) float32
    last_residual: np.ndarray | None  # (d_model,): at the end of the prompt; None under changes of the stream


@dataclass(frozen=True, kw_only=True)
class CheckTask(_Task):
    """A tree that is there, to be held against other ghosts."""

    growth: GrowthTask  # as it was grown
    tree: Tree
    controls: np.ndarray  # (m, d_model) float32: the other ghosts' embedding rows; nothing else is done to these
    texts: list[Text]  # to be read


@dataclass(frozen=True)
class Checked:
    log_probs: np.ndarray  # (1 + m, nodes): of every node's path, under the tree's own ghost and the others
    entropies: np.ndarray  # (1 + m,) nats: of the first token
    last_residuals: np.ndarray | None  # (1 + m, d_model): at the end of the prompt; None under changes of the stream
    residuals: list[np.ndarray]  # of each text, (tokens, d_model) float32


@dataclass(frozen=True, kw_only=True)
class ReadTask(_Task):
    """Texts to be read."""

    texts: list[Text]


def likeliest_texts(tree: Tree, n: int) -> list[tuple[Text, float]]:
    """The ``n`` most probable definitions as token ids, and how probable each is; without the token that ends one.

    One that several tokens end (``"``, ``."``) is one definition.
    """
    found: dict[Text, float] = {}
    for leaf in np.flatnonzero(tree.is_leaf | tree.end).tolist():
        if text := text_of(tree, leaf):
            found[text] = found.get(text, 0.0) + float(tree.cumulative_prob[leaf])
    return sorted(found.items(), key=lambda item: -item[1])[:n]


def text_of(tree: Tree, leaf: int) -> Text:
    """The token ids down to ``leaf``, without the token that ends the definition."""
    path = tree.path(leaf)
    return tuple(int(tree.token_id[node]) for node in path if not tree.end[node])


@torch.inference_mode()
def ask(model, task: AskTask, changes: Changes | None = None) -> Iterator[list[Asked]]:
    """The answers in the order of the ghosts, some at a time.

    Args:
        changes: those under which the trees grow. Their definitions are read as plain text all the same.
    """
    growth = task.growth
    for first in range(0, len(growth.v), _GHOSTS_AT_ONCE):
        vs = torch.from_numpy(growth.v[first : first + _GHOSTS_AT_ONCE])
        trees = [grown.tree for grown in grow_forest(
            Continuations(model, growth.prompt, vs, growth.top_k, growth.max_depth, changes),
            len(vs), cutoff=growth.cutoff, max_depth=growth.max_depth, max_nodes=growth.max_nodes, ends=growth.ends,
        )]
        texts = [[text for text, _ in likeliest_texts(tree, task.n_definitions)] for tree in trees]
        read = iter(read_texts(model, [text for listed in texts for text in listed], task.place))
        ends = [None] * len(vs) if changes else _at_the_end(model, growth, vs, task.place)
        yield [
            Asked(tree, listed, [next(read) for _ in listed], end)
            for tree, listed, end in zip(trees, texts, ends, strict=True)
        ]


@torch.inference_mode()
def check(model, task: CheckTask, changes: Changes | None = None) -> Iterator[Checked]:
    """One answer.

    Args:
        changes: those under which the tree was grown.
    """
    growth = task.growth
    v, controls = torch.from_numpy(growth.v[None]), torch.from_numpy(task.controls)
    if changes is None:
        vs = torch.cat([v, controls])
        log_probs, entropies = path_log_probs(model, growth.prompt, vs, task.tree)
        ends = _at_the_end(model, growth, vs, task.place)
    else:
        found = (path_log_probs(model, growth.prompt, v, task.tree, changes),
                 path_log_probs(model, growth.prompt, controls, task.tree))
        log_probs, entropies = (np.concatenate(parts) for parts in zip(*found, strict=True))
        ends = None  # a push along the feature's direction would be all that they tell
    yield Checked(log_probs, entropies, ends, read_texts(model, task.texts, task.place))


def read(model, task: ReadTask) -> Iterator[list[np.ndarray]]:
    """One answer: of each text its residuals, (tokens, d_model) float32."""
    yield read_texts(model, task.texts, task.place)


@torch.inference_mode()
def read_texts(model, texts: Sequence[Text], place: Place) -> list[np.ndarray]:
    """Each text's residuals at the hook, (tokens, d_model) float32; what stands before it is left out."""
    before = () if place.bos_id is None else (place.bos_id,)
    answers: list[np.ndarray] = [None] * len(texts)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
    for first in range(0, len(by_length), _TEXTS_AT_ONCE):
        chosen = by_length[first : first + _TEXTS_AT_ONCE]
        longest = len(texts[chosen[-1]])
        ids = torch.zeros(len(chosen), len(before) + longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chosen):
            tokens = torch.tensor(before + texts[i], dtype=torch.long)
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        found = residuals(model, place.hook, input_ids=ids, attention_mask=mask).float().cpu().numpy()
        for row, i in enumerate(chosen):
            answers[i] = found[row, len(before) : len(before) + len(texts[i])]
    return answers


def _at_the_end(model, growth: GrowthTask, vs: torch.Tensor, place: Place) -> np.ndarray:
    """The residual at the prompt's last position with each ghost in it: (n, d_model)."""
    found = [
        residuals(model, place.hook, inputs_embeds=ghost_embeddings(model, growth.prompt, part))[:, -1]
        for part in vs.split(_TEXTS_AT_ONCE)
    ]
    return torch.cat(found).float().cpu().numpy()

