"""The language model at work: what it says after a prompt with a ghost in it.

Only this module and ``residual_stream`` run the model, and neither changes it. A ghost enters through the input
embeddings of one forward pass (or through a hook of that pass, see ``interventions``), so that any number of requests
can share a model without touching each other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from multitool.model.finite import NotFiniteError
from multitool.model.ghost_prompt import GhostPrompt
from multitool.model.interventions import AppliedInterventions, Interventions
from multitool.model.kv_cache import PathCache, cache_bytes
from multitool.model.layer_inputs import given, scaled_rows
from multitool.trees.growth import Next

# Of a processor and of a GPU:
_MAX_BATCH = {"cpu": 256, "cuda": 2048}  # beyond this a larger batch no longer makes a path cheaper
_SORTED_AT_ONCE = 1 << 18  # next tokens of a batch; more are sorted out before
_TINIEST = np.finfo(np.float32).smallest_subnormal
_LOGITS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 26}  # numbers; a processor's own caches hold so many


@dataclass(frozen=True)
class Batches:
    """How much goes through the model at once; None: what suits the machine."""

    max_paths: int | None = None
    n_bytes: int | None = None  # memory that a batch's cache at full depth and its logits may take


WHAT_FITS = Batches()


def ghost_embeddings(model, prompt: GhostPrompt, v: Tensor) -> Tensor:
    """The input embeddings of ``prompt`` with ``v`` in the ghost's place.

    A real token's row as ghost gives exactly that token.

    Args:
        v: (d_model,), or (n, d_model) for as many ghosts.

    Returns:
        (1, length, d_model), or (n, length, d_model).
    """
    module = model.get_input_embeddings()
    E = module.weight
    rows = scaled_rows(module, torch.atleast_2d(v).to(E))
    embeddings = _plain_embeddings(model, prompt, len(rows))
    embeddings[:, prompt.position] = rows
    return embeddings


def prompt_embeddings(model, prompt: GhostPrompt, vs: Tensor, changes: AppliedInterventions) -> Tensor:
    """The input embeddings of ``prompt`` for the ghosts ``vs`` (n, d_model): (n, length, d_model).

    Where the changes put the ghosts in after a layer, those of the prompt as it is.
    """
    return _plain_embeddings(model, prompt, len(vs)) if changes.injects else ghost_embeddings(model, prompt, vs)


def _plain_embeddings(model, prompt: GhostPrompt, n: int) -> Tensor:
    """Those of the prompt's own tokens, ``n`` times: (n, length, d_model)."""
    module = model.get_input_embeddings()
    return module(torch.tensor([prompt.token_ids], device=module.weight.device)).repeat(n, 1, 1)


def prompt_ids(prompt: GhostPrompt, like: Tensor) -> Tensor:
    """The prompt's tokens, one of them in the ghost's place, as many times as ``like`` has rows: (n, length)."""
    return torch.tensor([prompt.token_ids], device=like.device).expand(len(like), -1)


# Given the logits of one batch, (n, V) in float32, and which rows of the whole answer they belong to: some arrays.
Read = Callable[[Tensor, slice], tuple[np.ndarray, ...]]


class Passes:
    """Many paths through the model at once; each continues on what was kept of its parent.

    A function reads what is wanted off each batch's logits, so that those of a whole level never lie in memory; what it
    answers is joined over the batches. The placeholder's logit is -inf (no circular definitions).
    """

    def __init__(
        self, model, prompt: GhostPrompt, v: Tensor, longest: int, changes: AppliedInterventions | None = None,
        batches: Batches = WHAT_FITS,
    ):
        """
        Args:
            model: a transformers causal LM in eval mode.
            v: the ghost's embedding row, (d_model,), or of several ghosts, (n, d_model).
            longest: how many tokens a path can have after the prompt.
            changes: what else is done to the stream; None: nothing.
            batches: their limits.
        """
        self._batches = batches
        self._changes = changes or AppliedInterventions(model, prompt, Interventions())
        self._same_beginnings = changes is None  # what is done to the stream may be done before the ghost
        self._model = model
        self._prompt = prompt
        self._v = torch.atleast_2d(v)
        self._longest = longest
        self._cache = PathCache(len(prompt.token_ids) + longest)  # of the paths of the last answer
        self._batch = 0  # how many paths at most in one pass; 0: not known yet

    @torch.inference_mode()
    def start(self, read: Read, paths: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """After the prompt with each of the ghosts; or after the prompt and each of ``paths``, (n, k) token ids."""
        steps = None if paths is None else _shared_steps(paths)
        if steps:
            *before, last = steps
            self.start(_nothing)
            for step in before:
                self.advance(_nothing, *step)
            return self.advance(read, *last)
        v = self._v if paths is None else self._v.expand(len(paths), -1)
        paths = np.empty((len(v), 0), dtype=np.int64) if paths is None else paths
        shared = self._prompt.position if self._same_beginnings and len(v) > 1 else 0  # tokens that are read once
        answers: list[tuple[np.ndarray, ...]] = []
        # The first pass is over one row, to see how much memory one takes.
        if shared:
            self._begin(_nothing, v, paths, slice(0, 1), slice(0, shared))
            self._cache.turn()
        else:
            answers += self._begin(read, v, paths, slice(0, 1), slice(0, None))
        for first in range(0 if shared else 1, len(v), self._batch):
            rows = slice(first, min(first + self._batch, len(v)))
            answers += self._begin(read, v, paths, rows, slice(shared, None))
        self._cache.turn()
        return _joined(answers)

    def _begin(
        self, read: Read, v: Tensor, paths: np.ndarray, rows: slice, positions: slice
    ) -> list[tuple[np.ndarray, ...]]:
        """The prompt and what follows it in one pass, or some of these positions; those before are kept of one path."""
        embeddings = prompt_embeddings(self._model, self._prompt, v[rows], self._changes)
        module = self._model.get_input_embeddings()
        following = torch.from_numpy(paths[rows]).to(embeddings.device)
        embeddings = self._changes.embedded(torch.cat([embeddings, module(following)], dim=1))[:, positions]
        ids = torch.cat([prompt_ids(self._prompt, following), following], dim=1)[:, positions]
        n_paths, length = ids.shape
        parents = np.zeros(n_paths, dtype=np.int64) if positions.start else None
        cache = None if parents is None else self._cache.gathered(parents, embeddings.device, length)
        # Told by a number, Gemma 4 leaves the other positions out of its last layers, where changes may be wanted, and
        # other models read their whole output head for every path.
        last = torch.tensor([length - 1], device=embeddings.device)
        with self._changes.during(0, v[rows]):
            output = self._model(
                **given(self._model, embeddings, ids), cache=cache, use_cache=True, logits_to_keep=last
            )
        self._batch = self._batch or self._batch_size(output, length)
        self._cache.add(output.cache, n_paths, length, parents)
        return list(self._answers(read, output.logits, rows))

    @torch.inference_mode()
    def advance(self, read: Read, rows: np.ndarray, token_ids: np.ndarray) -> tuple[np.ndarray, ...]:
        """After each of ``rows`` of the last answer (n,), rising, continued by ``token_ids`` (n,)."""
        module = self._model.get_input_embeddings()
        first = len(self._prompt.token_ids)  # at least; further on nothing depends on the position
        answers: list[tuple[np.ndarray, ...]] = []
        for part in np.array_split(np.arange(len(rows)), -(-len(rows) // self._batch)):
            ids = torch.from_numpy(token_ids[part])[:, None].to(module.weight.device)
            embeddings = self._changes.embedded(module(ids), first)
            cache = self._cache.gathered(rows[part], embeddings.device)
            with self._changes.during(first):
                output = self._model(**given(self._model, embeddings, ids), cache=cache, use_cache=True)
            self._cache.add(output.cache, len(part), 1, rows[part])
            answers += self._answers(read, output.logits, slice(part[0], part[-1] + 1))
        self._cache.turn()
        return _joined(answers)

    def _answers(self, read: Read, logits: Tensor, rows: slice) -> Iterator[tuple[np.ndarray, ...]]:
        """What is read off the logits of a batch, ``rows`` of the whole answer, a part at a time."""
        logits = logits[:, -1]
        first = rows.start
        for part in logits.split(max(1, _LOGITS_AT_ONCE[logits.device.type] // logits.shape[-1])):
            part = part.float()
            # NaN and infinity show in the largest one; minus infinity rules a token out.
            if not part.amax(dim=-1).isfinite().all():
                raise NotFiniteError
            part[:, self._prompt.placeholder_id] = -torch.inf
            yield read(part, slice(first, first + len(part)))
            first += len(part)

    def _batch_size(self, output, length: int) -> int:
        """How many paths at most, judging by a pass over one path of ``length`` tokens."""
        path_bytes = cache_bytes(output.cache) * (len(self._prompt.token_ids) + self._longest) / length
        logits_bytes = output.logits.shape[-1] * 4
        device = output.logits.device
        n_fitting = (self._batches.n_bytes or _batch_bytes(device)) // (2 * path_bytes + logits_bytes)
        return int(min(self._batches.max_paths or _MAX_BATCH[device.type], max(1, n_fitting)))


def _batch_bytes(device: torch.device) -> int:
    """The memory that one batch of paths may take: its cache at full depth and its logits."""
    # What is kept of all paths comes on top of it.
    if device.type == "cpu":
        return 1 << 30
    # What PyTorch holds without using it is free too.
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + held) // 8


@torch.inference_mode()
def trees_at_once(model, prompt: GhostPrompt, n_nodes: int, n_bytes: int = 1 << 30) -> int:
    """How many trees may grow together so that what is kept of their tokens stays below ``n_bytes``; at least one.

    Args:
        model: a transformers causal LM in eval mode.
        n_nodes: how many nodes a tree has, about.
    """
    ids = torch.tensor([prompt.token_ids], device=model.get_input_embeddings().weight.device)
    length = len(prompt.token_ids)
    token_bytes = cache_bytes(model(ids, use_cache=True, logits_to_keep=1).cache) / length
    return max(1, int(n_bytes // (token_bytes * (length + n_nodes))))


class Continuations:
    """The most probable next tokens for many paths at once (a ``growth.NextTokens``)."""

    def __init__(
        self, model, prompt: GhostPrompt, v: Tensor, top_k: int, longest: int,
        changes: AppliedInterventions | None = None, batches: Batches = WHAT_FITS,
    ):
        """
        Args:
            model: a transformers causal LM in eval mode.
            v: the ghost's embedding row, (d_model,), in the units of the raw embedding matrix; or (n, d_model),
                the rows of the ghosts of ``n`` trees (``growth.grow_forest``).
            top_k: how many next tokens of a path at most; 0: all that are wanted.
            longest: how many tokens a path can have after the prompt.
            changes: what else is done to the stream; None: nothing.
            batches: their limits.
        """
        self._passes = Passes(model, prompt, v, longest, changes, batches)
        self._top_k = top_k
        self.entropies: np.ndarray | None = None

    def start(self, paths: np.ndarray | None = None, least: np.ndarray | None = None) -> Next:
        if paths is not None:
            return Next(*self._passes.start(partial(self._most_probable, least), paths))
        *found, self.entropies = self._passes.start(partial(self._with_entropies, least))
        return Next(*found)

    def advance(self, rows: np.ndarray, token_ids: np.ndarray, least: np.ndarray | None = None) -> Next:
        return Next(*self._passes.advance(partial(self._most_probable, least), rows, token_ids))

    def _most_probable(self, least: np.ndarray | None, logits: Tensor, rows: slice) -> tuple[np.ndarray, ...]:
        return self._best(logits.softmax(dim=-1), least, rows)

    def _with_entropies(self, least: np.ndarray | None, logits: Tensor, rows: slice) -> tuple[np.ndarray, ...]:
        probs = logits.softmax(dim=-1)
        entropies = torch.special.entr(probs).sum(dim=-1)
        return *self._best(probs, least, rows), entropies.double().cpu().numpy()

    def _best(self, probs: Tensor, least: np.ndarray | None, rows: slice) -> tuple[np.ndarray, ...]:
        """The parts of a ``Next``, of a batch: ``rows`` of the whole answer."""
        least = np.zeros(len(probs)) if least is None else least[rows]
        beyond = np.zeros(len(probs))
        n_tokens = probs.shape[1]
        # So many can be wanted at most, since probabilities sum to 1.
        if 0 < self._top_k < n_tokens and (1 / np.maximum(least, 1 / n_tokens)).sum() > _SORTED_AT_ONCE:
            least, beyond = _without_most(probs, least, self._top_k)
        row, token_id, prob = _at_least(probs, least)
        order = np.lexsort((-prob, row))
        row, token_id, prob = row[order], token_id[order], prob[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        kept = rank < (self._top_k or len(row))
        beyond += np.bincount(row[~kept], prob[~kept], minlength=len(probs))
        return row[kept] + rows.start, token_id[kept], prob[kept], beyond


def _without_most(probs: Tensor, least: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Where far more tokens are wanted than the ``top_k`` that count: for each row of the ``probs`` (n, V) the
    probability of the last of these, where it is more than ``least`` (n,), and the sum of what is wanted below it."""
    last = probs.topk(top_k, dim=-1).values[:, -1:]
    wanted = probs >= torch.from_numpy(least.astype(np.float32)[:, None]).to(probs.device)
    left_out = torch.where(wanted & (probs < last), probs, 0.0).sum(dim=-1, dtype=torch.float64)
    return np.maximum(least, last[:, 0].cpu().numpy()), left_out.cpu().numpy()


def _at_least(probs: Tensor, least: np.ndarray) -> tuple[np.ndarray, ...]:
    """Row, column and value of the ``probs`` (n, V) that are at least ``least`` (n,)."""
    # A cutoff that float32 cannot hold is no reason to ask for tokens that are impossible.
    bound = np.where(least > 0, np.maximum(least.astype(np.float32), _TINIEST), np.float32(0))[:, None]
    if probs.device.type == "cpu":  # NumPy takes a sixth of PyTorch's time for it
        numbers = probs.numpy()
        row, column = np.divmod(np.flatnonzero(numbers >= bound), probs.shape[1])
        return row, column, numbers[row, column]
    # Each copy waits for the GPU: two and not three.
    places = (probs >= torch.from_numpy(bound).to(probs.device)).flatten().nonzero().flatten()
    numbers = probs.flatten()[places].cpu().numpy()
    return *np.divmod(places.cpu().numpy(), probs.shape[1]), numbers


def _nothing(logits: Tensor, rows: slice) -> tuple[np.ndarray, ...]:
    return ()


def _shared_steps(paths: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """The way to all paths at once, token after token, as ``Passes.advance`` takes it: what they share is read once.

    None where the paths of one beginning do not stand together, as in somebody's own file.
    """
    before = np.zeros(len(paths), dtype=np.int64)  # where the beginning of each path stands in the last answer
    steps = []
    for n in range(1, paths.shape[1]):
        _, first, which = np.unique(paths[:, :n], axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)
        steps.append((before[first[order]], paths[first[order], n - 1]))
        before = np.argsort(order)[which.ravel()]
    steps.append((before, paths[:, -1]))
    return steps if all((np.diff(rows) >= 0).all() for rows, _ in steps) else None


def _joined(answers: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(arrays) for arrays in zip(*answers, strict=True))
