"""The passages on which each feature fires most, so that a reader can check an interpretation."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

SCHEMA = "sae-multitool/contexts/1"
PER_FEATURE = 4
_CANDIDATES = 16  # more than are shown, because repeated passages are left out
_BEFORE, _AFTER = 12, 5
_FIRST_POSITION = 6  # without words before it a token tells little, and the model treats the first ones oddly


def strongest_contexts(
    sae, activations: np.ndarray, chosen: np.ndarray, contexts: np.ndarray, tokenizer
) -> list:
    """For each feature up to four ``[before, token, after, activation]`` from distinct passages.

    ``chosen`` are the numbers of the contexts to look at.
    """
    values, where, positions = _strongest(sae, activations, chosen)
    return [
        _distinct(values[:, i], where[:, i], positions[:, i], contexts, tokenizer)
        for i in range(values.shape[1])
    ]


@torch.inference_mode()
def _strongest(sae, activations: np.ndarray, chosen: np.ndarray, batch: int = 16) -> tuple[np.ndarray, ...]:
    """Per feature the highest activations, one per context: values, context numbers, positions in them."""
    best = torch.full((_CANDIDATES, sae.cfg.d_sae), -1.0)
    where = torch.zeros(best.shape, dtype=torch.long)
    positions = torch.zeros(best.shape, dtype=torch.long)
    for start in range(0, len(chosen), batch):
        numbers = chosen[start : start + batch]
        # Position 0 of every context is not among the activations.
        block = torch.from_numpy(activations[numbers][:, _FIRST_POSITION - 1 :].astype(np.float32))
        peaks, peak_positions = sae.encode(block).max(dim=1)
        best, kept = torch.cat([best, peaks]).topk(_CANDIDATES, dim=0)
        where = torch.cat([where, torch.from_numpy(numbers)[:, None].expand_as(peaks)]).gather(0, kept)
        positions = torch.cat([positions, peak_positions + _FIRST_POSITION]).gather(0, kept)
    return best.numpy(), where.numpy(), positions.numpy()


def _distinct(values, where, positions, contexts: np.ndarray, tokenizer) -> list:
    chosen: list = []
    seen: set[str] = set()
    for value, number, position in zip(values, where, positions, strict=True):
        if value <= 0 or len(chosen) == PER_FEATURE:
            break
        ids = contexts[number]
        before, token, after = (
            tokenizer.decode(part.tolist(), clean_up_tokenization_spaces=False, skip_special_tokens=True)  # no BOS
            for part in (
                ids[max(0, position - _BEFORE) : position],
                ids[position : position + 1],
                ids[position + 1 : position + 1 + _AFTER],
            )
        )
        # The same phrase in another passage teaches nothing new.
        phrase = before[-20:] + token + after[:12]
        if phrase not in seen:
            seen.add(phrase)
            chosen.append([before, token, after, float(f"{value:.4g}")])
    return chosen


@torch.inference_mode()
def strongest_tokens(sae, rows: torch.Tensor, tokenizer, count: int = 10) -> list:
    """For an SAE on the embedding: each feature's tokens of highest activation, in the same form."""
    values, ids = torch.cat([sae.encode(block) for block in rows.split(4096)]).topk(count, dim=0)
    columns = zip(values.T.tolist(), ids.T.tolist(), strict=True)
    return [list(_token_entries(best, tokens, tokenizer)) for best, tokens in columns]


def _token_entries(values: list[float], ids: list[int], tokenizer) -> Iterator[list]:
    for value, token in zip(values, ids, strict=True):
        if value > 0:
            text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
            yield ["", text, "", float(f"{value:.4g}")]


def write_contexts(path: Path, source: str, features: list) -> None:
    """Write the file whole or not at all."""
    unfinished = path.with_name(".contexts.unfinished")
    content = {"schema": SCHEMA, "source": source, "features": features}
    unfinished.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    unfinished.replace(path)
