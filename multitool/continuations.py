"""The language model at work: the most probable continuations of a prompt with a ghost in it.

The only place that runs the model, and it only reads it. A ghost enters through the input embeddings of one forward
pass, so that any number of requests can share a model without touching each other.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from multitool.subject import GhostPrompt

_BATCH_BYTES = 1 << 30  # memory that one batch of paths may take: its cache at full depth and its logits
_MAX_BATCH = 256  # beyond this a larger batch no longer makes a path cheaper


def ghost_embeddings(model, prompt: GhostPrompt, v: Tensor) -> Tensor:
    """The input embeddings of ``prompt`` with ``v`` in the ghost's place: (1, length, d_model).

    Some models (Gemma) multiply the rows inside their embedding module; the ghost's row gets the same factor, in
    the weights' own precision, so that a real token's row as ghost gives exactly that token.
    """
    module = model.get_input_embeddings()
    E = module.weight
    ids = torch.tensor([prompt.token_ids], device=E.device)
    row = v.to(E)
    factor = getattr(module, "embed_scale", None)
    if factor is not None:
        row = row * torch.as_tensor(factor).to(E)
    embeddings = module(ids).clone()
    embeddings[0, prompt.position] = row
    return embeddings


class Continuations:
    """Next tokens for many paths at once, each path's past kept in a key-value cache (a ``growth.NextTokens``).

    A level's paths lie in chunks, one cache each. A path continues on a copy of its parent's row of the cache.
    """

    def __init__(self, model, prompt: GhostPrompt, v: Tensor, top_k: int, longest: int):
        """
        Args:
            model: a transformers causal LM in eval mode.
            v: the ghost's embedding row, (d_model,), in the units of the raw embedding matrix.
            longest: how many tokens a path can have, to size the batches.
        """
        self._model = model
        self._prompt = prompt
        self._v = v
        self._longest = longest
        self._top_k = min(top_k, model.get_input_embeddings().weight.shape[0])
        self._chunks: list[tuple[int, object]] = []  # (paths, cache) of the last answer, in order
        self._batch = 1

    @torch.inference_mode()
    def start(self, paths: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        paths = np.empty((1, 0), dtype=np.int64) if paths is None else paths
        # The first path alone, to see how much memory one takes.
        answers = [self._read(paths[:1])]
        for first in range(1, len(paths), self._batch):
            answers.append(self._read(paths[first : first + self._batch]))
        return _joined(answers)

    def _read(self, paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The prompt and what follows it, (n, k) tokens, in one pass."""
        embeddings = ghost_embeddings(self._model, self._prompt, self._v)
        module = self._model.get_input_embeddings()
        followers = module(torch.from_numpy(paths).to(embeddings.device))
        embeddings = torch.cat([embeddings.expand(len(paths), -1, -1), followers], dim=1)
        output = self._model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)
        if not self._chunks:
            self._batch = self._batch_size(output, embeddings.shape[1])
        self._chunks.append((len(paths), output.past_key_values))
        return self._most_probable(output.logits[:, -1])

    @torch.inference_mode()
    def advance(self, rows: np.ndarray, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers, chunks, first = [], [], 0
        for n_paths, cache in self._chunks:
            inside = np.flatnonzero((first <= rows) & (rows < first + n_paths))
            for part in np.split(inside, range(self._batch, len(inside), self._batch)):
                if len(part):
                    answer, grown = self._continue(cache, rows[part] - first, token_ids[part])
                    answers.append(answer)
                    chunks.append((len(part), grown))
            first += n_paths
        self._chunks = chunks
        return _joined(answers)

    def _continue(self, cache, rows: np.ndarray, token_ids: np.ndarray):
        device = self._model.get_input_embeddings().weight.device
        cache = fork(cache)
        cache.reorder_cache(torch.from_numpy(rows).to(device))
        output = self._model(
            input_ids=torch.from_numpy(token_ids)[:, None].to(device), past_key_values=cache, use_cache=True
        )
        return self._most_probable(output.logits[:, -1]), output.past_key_values

    def _most_probable(self, logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Softmax in float32 without the placeholder (no circular definitions), the top_k of it."""
        logits = logits.float()
        logits[:, self._prompt.placeholder_id] = -torch.inf
        top = logits.softmax(dim=-1).topk(self._top_k, dim=-1)
        return top.indices.cpu().numpy(), top.values.cpu().numpy()

    def _batch_size(self, output, length: int) -> int:
        cache_bytes = sum(tensor.nbytes for tensor in _tensors(output.past_key_values))
        path_bytes = cache_bytes * (len(self._prompt.token_ids) + self._longest) / length
        logits_bytes = output.logits.shape[-1] * 4 * 3  # as they come, in float32, as probabilities
        return int(min(_MAX_BATCH, max(1, _BATCH_BYTES // (2 * path_bytes + logits_bytes))))


def _joined(answers: list) -> tuple[np.ndarray, np.ndarray]:
    ids, probs = zip(*answers, strict=True)
    return np.concatenate(ids), np.concatenate(probs)


def fork(cache):
    """A copy of a cache that can be reordered and grown without changing the original; shares its tensors.

    The layers' dictionaries are copied too: linear-attention layers keep their states in them.
    """
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in twin.layers:
        for name, value in vars(layer).items():
            if isinstance(value, dict):
                setattr(layer, name, dict(value))
    return twin


def _tensors(cache) -> Sequence[Tensor]:
    values = [value for layer in cache.layers for value in vars(layer).values()]
    values += [inner for value in values if isinstance(value, dict) for inner in value.values()]
    return [value for value in values if isinstance(value, Tensor)]
