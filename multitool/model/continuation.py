"""A text continued while the model is steered: all strengths in one batch, each token written once.

The unsteered continuation is a row of the batch like the others, pushed by nothing.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from multitool.model.finite import finite
from multitool.model.interventions import mean_residual_norm
from multitool.model.layer_inputs import given
from multitool.model.residual_stream import EMBEDDING, changed
from multitool.model.tasks import SteerTask, Text, Written


@torch.inference_mode()
def continue_text(model, task: SteerTask) -> Iterator[Written]:
    """What is written, after every token; in the end read back by the unsteered model.

    With ``m`` the mean residual norm at a push's hook, a continuation of strength ``s`` is written under
    ``x + s · push.strength · m · push.direction`` at every position that is not spared. The next token is the most
    probable one; with a temperature T it is drawn from ``softmax(logits / T)``, as the one of the highest
    ``logits / T + g`` with ``g`` from the standard Gumbel distribution. All continuations draw the same ``g``, so that
    they differ by the pushes alone, and none depends on which others are asked for.

    Args:
        model: a transformers causal LM in eval mode.

    Raises:
        UserError: the model has no such place.
        NotFiniteError: the model does not compute finite numbers.
    """
    until = None if task.seconds is None else time.monotonic() + task.seconds
    norms = {push.hook: mean_residual_norm(model, push.hook, task.prose) for push in task.pushes}
    device = model.get_input_embeddings().weight.device
    noise = torch.Generator().manual_seed(task.seed)
    texts: list[list[int]] = [[] for _ in task.strengths]
    ended = [False] * len(texts)
    ids = torch.tensor([task.token_ids], device=device).expand(len(texts), -1)
    cache, written = None, Written((), (), norms)
    for _ in range(task.length):
        output = _pushed_pass(model, task, norms, ids, cache)
        chosen = _next_tokens(finite(output.logits[:, -1].float()), task.temperature, noise)
        for row, token_id in enumerate(chosen.tolist()):
            ended[row] = ended[row] or token_id in task.end_ids
            if not ended[row]:
                texts[row].append(token_id)
        written = Written(tuple(map(tuple, texts)), tuple(ended), norms)
        yield written
        if all(ended) or (until is not None and time.monotonic() > until):
            break
        ids, cache = chosen.to(device)[:, None], output.cache
    done = all(end or len(text) == task.length for text, end in zip(texts, ended, strict=True))
    yield replace(_read_back(model, task, written), done=done)


def _pushed_pass(model, task: SteerTask, norms: dict[str, float], ids: Tensor, cache):
    """The model's answer to some positions of all rows, (rows, positions): the text's without a ``cache``, or those
    behind what it holds."""
    embeddings = model.get_input_embeddings()(ids)
    strengths = torch.tensor(task.strengths)[:, None, None]
    meant = torch.ones(ids.shape[1])
    if cache is None:
        meant[list(task.spared)] = 0
    with ExitStack() as stack:
        for push in task.pushes:
            direction = push.strength * norms[push.hook] * torch.from_numpy(push.direction)
            add = partial(_plus, added=strengths * meant[:, None] * direction)
            if push.hook == EMBEDDING:
                embeddings = add(embeddings)
            else:
                stack.enter_context(changed(model, push.hook, add))
        # As a tensor: see ``passes.Passes``.
        last = torch.tensor([ids.shape[1] - 1], device=ids.device)
        return model(**given(model, embeddings, ids), cache=cache, use_cache=True, logits_to_keep=last)


def _plus(stream: Tensor, added: Tensor) -> Tensor:
    return stream + added.to(stream.device, stream.dtype)


def _next_tokens(logits: Tensor, temperature: float, noise: torch.Generator) -> Tensor:
    """The tokens that are chosen, (rows,), of the logits (rows, V)."""
    if not temperature:
        return logits.argmax(dim=-1).cpu()
    # On the processor, so that the same seed draws the same on any machine.
    exponential = torch.empty(logits.shape[-1]).exponential_(generator=noise)
    return (logits.cpu() / temperature - exponential.log()).argmax(dim=-1)


def _read_back(model, task: SteerTask, written: Written) -> Written:
    """The same with what the unsteered model makes of it."""
    # One by one: the logits of all would take gigabytes where the vocabulary is large.
    found = [_read(model, task, text) for text in written.token_ids]
    log_probs, residuals = zip(*found, strict=True)
    return replace(written, log_probs=log_probs, residuals=residuals if task.hook else None)


def _read(model, task: SteerTask, text: Text) -> tuple[np.ndarray, np.ndarray]:
    """Of what was written, the log-probability of each token after the text, (tokens,), and the residuals at the
    task's hook, (tokens, d_model), or (tokens, 0) without one."""
    if not text:
        return np.empty(0), np.empty((0, 0), dtype=np.float32)
    module = model.get_input_embeddings()
    ids = torch.tensor([task.token_ids + text], device=module.weight.device)
    embeddings = module(ids)
    seen = [embeddings] if task.hook == EMBEDDING else []

    def see(stream: Tensor) -> Tensor:
        seen.append(stream)
        return stream

    with ExitStack() as stack:
        if task.hook not in (None, EMBEDDING):
            stack.enter_context(changed(model, task.hook, see))
        places = torch.arange(len(task.token_ids) - 1, ids.shape[1] - 1, device=ids.device)
        logits = model(**given(model, embeddings, ids), use_cache=False, logits_to_keep=places).logits[0]
    log_probs = finite(logits.float()).log_softmax(dim=-1)[torch.arange(len(text)), list(text)]
    residuals = seen[0][0, -len(text):].float().cpu().numpy() if seen else np.empty((len(text), 0), dtype=np.float32)
    return log_probs.double().cpu().numpy(), residuals
