"""How probable a known tree is under other ghosts than its own."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from multitool.continuations import Passes
from multitool.interventions import Changes
from multitool.subject import GhostPrompt
from multitool.tree import ROOT, Tree


def path_log_probs(
    model, prompt: GhostPrompt, vs: Tensor, tree: Tree, changes: Changes | None = None
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

    Returns:
        (m, len(tree)) float64, natural log of the probability of the tokens from the prompt down to each node, the
        placeholder ruled out as in growing (-inf for a path that has it).
        (m,) float64: entropy of each ghost's first next token, in nats.
    """
    m, children = len(vs), tree.children()
    passes = Passes(model, prompt, vs, int(tree.depth.max(initial=0)), changes)
    log_probs = np.zeros((m, len(tree) + 1))  # the last column is the root's
    asked, step, entropies = np.array([ROOT]), None, None  # asked: the nodes of a level that have children
    while len(asked):
        nodes = np.array([child for node in asked for child in children[node]], dtype=np.int64)
        parent = np.repeat(np.arange(len(asked)), [len(children[node]) for node in asked])
        # An answer has a row for every one of ``asked``, ghost after ghost.
        row = np.arange(m)[:, None] * len(asked) + parent
        token_id = np.tile(tree.token_id[nodes], (m, 1))
        read = partial(_read, row.ravel(), token_id.ravel())
        if step is None:
            found, entropies = passes.start(read)
        else:
            found, _ = passes.advance(read, *step)
        log_probs[:, nodes] = log_probs[:, tree.parent[nodes]] + found.reshape(m, -1)
        open_ = np.isin(nodes, tree.parent)
        asked, step = nodes[open_], (row[:, open_].ravel(), token_id[:, open_].ravel())
    return log_probs[:, :-1], entropies


def _read(row: np.ndarray, token_id: np.ndarray, logits: Tensor, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Of one batch: the log-probability of ``token_id`` in each ``row`` that belongs to it, the entropy of each row.

    Args:
        row, token_id: (n,) each, of all batches; ``row`` rises.
        rows: those of the batch.
    """
    log_probs = logits.log_softmax(dim=-1)
    first, last = np.searchsorted(row, [rows.start, rows.stop])
    found = log_probs[row[first:last] - rows.start, token_id[first:last]]
    entropy = torch.special.entr(log_probs.exp()).sum(dim=-1)
    return found.double().cpu().numpy(), entropy.double().cpu().numpy()
