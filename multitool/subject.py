"""The language model as seen from here: its embedding space, its tokens, and a prompt with a ghost in it.

The model is only ever read. A ghost enters through the input embeddings of one forward pass, so that any
number of requests can share a model without touching each other.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from multitool.embedding import EmbeddingSpace
from multitool.errors import UserError
from multitool.recipe import GHOST
from multitool.vocabulary import token_texts

# Words to hold the ghost's place while the prompt is tokenized, rarest first: the place must be one token.
_PLACEHOLDERS = ("OSS", "XYZ", "foo", "blah", "thing", "word", "it", "X")
# End-of-text tokens that a configuration does not always list.
_END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<eos>", "</s>", "<end_of_turn>")

_BATCH_BYTES = 1 << 30  # memory that one batch of paths may take: its cache at full depth and its logits
_MAX_BATCH = 256  # beyond this a larger batch no longer makes a path cheaper


@dataclass(frozen=True)
class GhostPrompt:
    """A tokenized prompt with one token standing where the ghost belongs."""

    token_ids: tuple[int, ...]
    position: int  # of the ghost in token_ids

    @property
    def placeholder_id(self) -> int:
        return self.token_ids[self.position]


class Subject:
    """A causal language model and its tokenizer.

    Args:
        model: a transformers causal LM in eval mode.
        tokenizer: its fast tokenizer.
        name: how results name the model.
    """

    def __init__(self, model, tokenizer, name: str):
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.space = EmbeddingSpace(model.get_input_embeddings().weight)
        self._ends: dict[str | None, np.ndarray] = {}

    @property
    def dtype(self) -> str:
        return str(self.space.E.dtype).removeprefix("torch.")

    @property
    def max_length(self) -> int | None:
        """The longest sequence that the model's positions allow, where it says so."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def token_texts(self) -> tuple[str, ...]:
        """The exact text of every token, by id."""
        return token_texts(self.tokenizer, self.space.n_tokens)

    def ends(self, closing_quote: str | None) -> np.ndarray:
        """(V,) bool: tokens that contain the closing quote, and end-of-text tokens."""
        if closing_quote not in self._ends:
            ends = np.zeros(self.space.n_tokens, dtype=bool)
            ends[sorted(self._end_of_text_ids)] = True
            if closing_quote:
                ends |= np.fromiter((closing_quote in text for text in self.token_texts), bool, len(ends))
            self._ends[closing_quote] = ends
        return self._ends[closing_quote]

    @cached_property
    def _end_of_text_ids(self) -> set[int]:
        ids = set()
        for holder in (self.model.config.get_text_config(), self.model.generation_config, self.tokenizer):
            listed = getattr(holder, "eos_token_id", None)
            ids |= set(listed) if isinstance(listed, (list, tuple)) else {listed}
        added = self.tokenizer.get_added_vocab()
        ids |= {added.get(text) for text in _END_OF_TEXT}
        return {token_id for token_id in ids if token_id is not None and token_id < self.space.n_tokens}

    def ghost_prompt(self, template: str, max_depth: int) -> GhostPrompt:
        """Tokenize ``template`` with a single token in the place of ``{ghost}``.

        Raises:
            UserError: no word makes a single token there, or the prompt and a tree of ``max_depth`` are longer
                than the model allows.
        """
        before, after = template.split(GHOST)
        for word in _PLACEHOLDERS:
            prompt = self._locate(before, word, after)
            if prompt:
                break
        else:
            raise UserError(
                f"In the prompt {template!r} the place of {GHOST} is no single token for this model's tokenizer. "
                f'Put quotes or blanks around it: "{GHOST}".'
            )
        length = len(prompt.token_ids)
        if self.max_length and length + max_depth > self.max_length:
            raise UserError(
                f"The prompt has {length} tokens; with max_depth {max_depth} that is more than the {self.max_length} "
                "that the model allows. Shorten the prompt."
            )
        return prompt

    def _locate(self, before: str, word: str, after: str) -> GhostPrompt | None:
        text = before + word + after
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        start, end = len(before), len(before) + len(word)
        touching = [
            position
            for position, (left, right) in enumerate(encoded["offset_mapping"])
            if left < end and right > start
        ]
        if len(touching) != 1:
            return None
        left, right = encoded["offset_mapping"][touching[0]]
        # A token may take the blank before the word with it, but nothing else.
        return GhostPrompt(tuple(encoded["input_ids"]), touching[0]) if text[left:right].strip() == word else None

    def next_tokens(self, prompt: GhostPrompt, v: Tensor, top_k: int, longest: int) -> "Continuations":
        """The most probable continuations of ``prompt`` with ``v`` as the ghost's embedding row.

        Args:
            v: (d_model,), in the units of the raw embedding matrix.
            longest: how many tokens a path can have, to size the batches.
        """
        return Continuations(self.model, prompt, v, top_k, longest)


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
        self._model = model
        self._prompt = prompt
        self._v = v
        self._longest = longest
        self._top_k = min(top_k, model.get_input_embeddings().weight.shape[0])
        self._chunks: list[tuple[int, object]] = []  # (paths, cache) of the last answer, in order
        self._batch = 1

    @torch.inference_mode()
    def start(self) -> tuple[np.ndarray, np.ndarray]:
        embeddings = ghost_embeddings(self._model, self._prompt, self._v)
        output = self._model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)
        self._chunks = [(1, output.past_key_values)]
        self._batch = self._batch_size(output)
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
        ids, probs = zip(*answers, strict=True)
        return np.concatenate(ids), np.concatenate(probs)

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

    def _batch_size(self, output) -> int:
        length = len(self._prompt.token_ids)
        cache_bytes = sum(tensor.nbytes for tensor in _tensors(output.past_key_values))
        path_bytes = cache_bytes * (length + self._longest) / length
        logits_bytes = output.logits.shape[-1] * 4 * 3  # as they come, in float32, as probabilities
        return int(min(_MAX_BATCH, max(1, _BATCH_BYTES // (2 * path_bytes + logits_bytes))))


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
