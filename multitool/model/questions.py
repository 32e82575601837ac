"""What evidence takes of the model: definitions read as plain text, and a known tree under other ghosts.

Tasks are plain data, as those of growing are, and so are the answers: they can go to another process and back.
"""

from collections.abc import Generator, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from multitool.model.finite import finite
from multitool.model.ghost_prompt import GhostPrompt
from multitool.model.interventions import AppliedInterventions
from multitool.model.passes import (
    WHAT_FITS,
    Batches,
    Continuations,
    Passes,
    Read,
    ghost_embeddings,
    prompt_ids,
    trees_at_once,
)
from multitool.model.residual_stream import padded, residuals
from multitool.model.tasks import (
    Asked,
    AskTask,
    Checked,
    CheckTask,
    ForestTask,
    GrowthTask,
    PathsTask,
    Place,
    ReadTask,
    Text,
)
from multitool.trees.growth import Growth, finished, grow_forest
from multitool.trees.tree import ROOT, Tree

_NODES_OF_A_TREE = 0.2  # times 1 / cutoff: so many have usual ones of the demo
TEXTS_AT_ONCE = {"cpu": 64, "cuda": 512}


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
def ask(model, task: AskTask, changes: AppliedInterventions | None = None) -> Iterator[list[Asked] | None]:
    """The answers in the order of the ghosts, some at a time; and None where it can be left in between.

    Args:
        changes: those under which the trees grow. Their definitions are read as plain text all the same.
    """
    growth = task.growth
    for first in range(0, len(growth.v), task.at_once):
        vs = torch.from_numpy(growth.v[first : first + task.at_once])
        trees = [grown.tree for grown in (yield from _grown(model, growth, vs, changes))]
        texts = [[text for text, _ in likeliest_texts(tree, task.n_definitions)] for tree in trees]
        read = iter((yield from _texts_read(model, [text for listed in texts for text in listed], task.place)))
        ends = [None] * len(vs) if changes else _at_the_end(model, growth, vs, task.place)
        yield [
            Asked(tree, listed, [next(read) for _ in listed], end)
            for tree, listed, end in zip(trees, texts, ends, strict=True)
        ]


def _grown(
    model, growth: GrowthTask, vs: Tensor, changes: AppliedInterventions | None
) -> Generator[None, None, list[Growth]]:
    """The trees of some ghosts, as a task has them; it yields after every level."""
    return (yield from grow_forest(
        Continuations(model, growth.prompt, vs, growth.top_k, growth.max_depth, changes),
        len(vs), cutoff=growth.cutoff, max_depth=growth.max_depth, max_nodes=growth.max_nodes, ends=growth.ends,
    ))


@torch.inference_mode()
def grow_together(
    model, task: ForestTask, changes: AppliedInterventions | None = None
) -> Iterator[list[Growth] | None]:
    """One answer; before it None, where it can be left.

    Args:
        changes: those under which the trees grow.
    """
    growth = task.growth
    n_nodes = min(growth.max_nodes, int(_NODES_OF_A_TREE / growth.cutoff))
    # That takes a pass, and a tree alone, as one that is pushed along its own feature, has nothing to share.
    at_once = trees_at_once(model, growth.prompt, n_nodes) if len(growth.v) > 1 else 1
    grown: list[Growth] = []
    for vs in torch.from_numpy(growth.v).split(at_once):
        grown += yield from _grown(model, growth, vs, changes)
    yield grown


@torch.inference_mode()
def read_paths(model, task: PathsTask) -> Iterator[np.ndarray | None]:
    """One answer; before it None, where it can be left."""
    growth = task.growth
    found, _ = yield from _levels_read(
        model, growth.prompt, torch.from_numpy(growth.v), task.tree, wanted=task.wanted
    )
    yield found


@torch.inference_mode()
def check(model, task: CheckTask, changes: AppliedInterventions | None = None) -> Iterator[Checked | None]:
    """One answer; before it None, where it can be left.

    Args:
        changes: those under which the tree was grown.
    """
    growth = task.growth
    v, controls = torch.from_numpy(growth.v[None]), torch.from_numpy(task.controls)
    if changes is None:
        vs = torch.cat([v, controls])
        log_probs, entropies = yield from _levels_read(model, growth.prompt, vs, task.tree)
        ends = _at_the_end(model, growth, vs, task.place)
    else:
        found = ((yield from _levels_read(model, growth.prompt, v, task.tree, changes)),
                 (yield from _levels_read(model, growth.prompt, controls, task.tree)))
        log_probs, entropies = (np.concatenate(parts) for parts in zip(*found, strict=True))
        ends = None  # a push along the feature's direction would be all that they tell
    read = yield from _texts_read(model, task.texts, task.place)
    yield Checked(log_probs, entropies, ends, read)


@torch.inference_mode()
def read(model, task: ReadTask) -> Iterator[list[np.ndarray] | None]:
    """One answer: of each text its residuals, (tokens, d_model) float32; before it None, where it can be left."""
    yield (yield from _texts_read(model, task.texts, task.place))


@torch.inference_mode()
def read_texts(
    model, texts: Sequence[Text], place: Place, *, texts_at_once: int | None = None
) -> list[np.ndarray]:
    """Each text's residuals at the hook, (tokens, d_model) float32; what stands before it is left out."""
    return finished(_texts_read(model, texts, place, texts_at_once=texts_at_once))


def _texts_read(
    model, texts: Sequence[Text], place: Place, *, texts_at_once: int | None = None
) -> Generator[None, None, list[np.ndarray]]:
    """As ``read_texts``; it yields after every batch."""
    texts_at_once = texts_at_once or _texts_at_once(model)
    before = () if place.bos_id is None else (place.bos_id,)
    answers: dict[int, np.ndarray] = {}
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
    for first in range(0, len(by_length), texts_at_once):
        chosen = by_length[first : first + texts_at_once]
        ids, mask = padded([before + texts[i] for i in chosen])
        found = residuals(model, place.hook, input_ids=ids, attention_mask=mask).float().cpu()
        for row, i in enumerate(chosen):
            answers[i] = finite(found[row, len(before) : len(before) + len(texts[i])]).numpy()
        yield
    return [answers[i] for i in range(len(texts))]


def _at_the_end(model, growth: GrowthTask, vs: torch.Tensor, place: Place) -> np.ndarray:
    """The residual at the prompt's last position with each ghost in it: (n, d_model)."""
    found = [
        residuals(
            model, place.hook, input_ids=prompt_ids(growth.prompt, part),
            inputs_embeds=ghost_embeddings(model, growth.prompt, part),
        )[:, -1]
        for part in vs.split(_texts_at_once(model))
    ]
    return finite(torch.cat(found).float().cpu()).numpy()


def _texts_at_once(model) -> int:
    return TEXTS_AT_ONCE[model.get_input_embeddings().weight.device.type]


def path_log_probs(
    model, prompt: GhostPrompt, vs: Tensor, tree: Tree, changes: AppliedInterventions | None = None,
    batches: Batches = WHAT_FITS,
) -> tuple[np.ndarray, np.ndarray]:
    """The log-probability of every node's path under each ghost.

    Level by level, all ghosts in the same batches; only nodes that have children are fed to the model. The caches of
    one level stay in memory together: as many as there are ghosts, times that level's nodes with children.

    Args:
        model: a transformers causal LM in eval mode.
        prompt: the one that the tree was grown with.
        vs: the ghosts' embedding rows, (m, d_model), at least one, in the units of the raw embedding matrix.
        tree: its token ids count, its probabilities do not.
        changes: what else is done to the stream; None: nothing.
        batches: their limits.

    Returns:
        (m, len(tree)) float64, natural log of the probability of the tokens from the prompt down to each node, the
        placeholder ruled out as in growing (-inf for a path that has it).
        (m,) float64: entropy of each ghost's first next token, in nats.
    """
    return finished(_levels_read(model, prompt, vs, tree, changes, batches))


def _levels_read(
    model, prompt: GhostPrompt, vs: Tensor, tree: Tree, changes: AppliedInterventions | None = None,
    batches: Batches = WHAT_FITS, wanted: np.ndarray | None = None,
) -> Generator[None, None, tuple[np.ndarray, np.ndarray]]:
    """As ``path_log_probs``; it yields after every level.

    Args:
        wanted: (m, len(tree)) bool, the nodes that each ghost is asked for, with those on the way to them; the others'
            entries stay 0. None: all.
    """
    m, children = len(vs), tree.children()
    wanted = np.ones((m, len(tree)), dtype=bool) if wanted is None else wanted
    goes_on = np.zeros((m, len(tree) + 1), dtype=bool)  # whether a ghost is asked for what comes behind a node
    for node, parent in enumerate(tree.parent):
        goes_on[:, parent] |= wanted[:, node]
    passes = Passes(model, prompt, vs, int(tree.depth.max(initial=0)), changes, batches)
    log_probs = np.zeros((m, len(tree) + 1))  # the last column is the root's
    # Where in the last answer, ghost after ghost, the row of a ghost and a node of the level before stands.
    place = np.zeros((m, len(tree) + 1), dtype=np.int64)
    place[:, ROOT] = np.arange(m)
    asked, step, entropies = [ROOT], None, np.empty(m)  # asked: the nodes of a level that anything follows
    while asked:
        nodes = np.array([child for node in asked for child in children[node]], dtype=np.int64)
        ghost, which = np.nonzero(wanted[:, nodes])
        each = nodes[which]
        row, token_id = place[ghost, tree.parent[each]], tree.token_id[each]
        read = partial(_read, row, token_id)
        if step is None:
            found, entropies = passes.start(partial(_read_with_entropies, read))
        else:
            found, = passes.advance(read, *step)
        log_probs[ghost, each] = log_probs[ghost, tree.parent[each]] + found
        open_ = goes_on[ghost, each]
        place[ghost[open_], each[open_]] = np.arange(np.count_nonzero(open_))
        asked, step = nodes[goes_on[:, nodes].any(axis=0)].tolist(), (row[open_], token_id[open_])
        yield
    return log_probs[:, :-1], entropies


def _read_with_entropies(read: Read, logits: Tensor, rows: slice) -> tuple[np.ndarray, ...]:
    """Of one batch, what ``read`` reads, and the entropy of each row."""
    entropy = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)
    return *read(logits, rows), entropy.double().cpu().numpy()


def _read(row: np.ndarray, token_id: np.ndarray, logits: Tensor, rows: slice) -> tuple[np.ndarray]:
    """Of one batch: the log-probability of ``token_id`` in each ``row`` that belongs to it.

    Args:
        row, token_id: (n,) each, of all batches; ``row`` rises.
        rows: those of the batch.
    """
    log_probs = logits.log_softmax(dim=-1)
    first, last = np.searchsorted(row, [rows.start, rows.stop])
    found = log_probs[row[first:last] - rows.start, token_id[first:last]]
    return (found.double().cpu().numpy(),)
