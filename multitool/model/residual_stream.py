"""Reading the model's residual stream at a place, and changing it there, by the name that SAEs have for that place.

Places are named as TransformerLens names them. The model itself never changes: a hook acts for the passes of the thread
that asked for it and for no other, so threads may use one model at the same time, at the same place or at different
ones. When the stream is read, the layers after the place do not run.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from multitool.errors import UserError, shown
from multitool.model.layer_inputs import given

EMBEDDING = "hook_embed"
_HOOK = re.compile(r"blocks\.(\d{1,4})\.hook_resid_(pre|mid|post)")
# The norm before the MLP, whose input is the stream after the attention; the first name that a layer has. (Gemma 2's
# and 3's layers have a post_attention_layernorm too, which belongs to the attention's output.)
_NORMS_BEFORE_MLP = ("ln_2", "pre_feedforward_layernorm", "post_attention_layernorm")
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm")  # as the architectures call it
GRAPH_BYTES = {"cpu": 4 << 30, "cuda": 8 << 30}  # what a backward pass may hold of the forward pass
_KEPT = 64  # numbers that a layer keeps of a token for the way back, in d_model: 28 in the demo, more in wide MLPs
# Held for moments: PyTorch numbers hooks by a counter that two threads must not read at once.
_HOOKS_CHANGE = threading.Lock()


class _SeenError(Exception):
    """Ends a forward pass when its hook has seen what it was for."""


@torch.no_grad()
def residuals(model, hook: str, **read) -> Tensor:
    """The residual stream at ``hook``, without gradients. Arguments and errors as for ``stream``."""
    return stream(model, hook, **read)


def stream(
    model,
    hook: str,
    *,
    input_ids: Tensor,
    inputs_embeds: Tensor | None = None,
    attention_mask: Tensor | None = None,
    cache=None,
) -> Tensor:
    """The residual stream at ``hook``, (batch, positions, d_model), in the model's precision and on its device.

    Args:
        model: a transformers causal LM in eval mode.
        hook: ``hook_embed`` (the token embeddings as the layers get them: Gemma's multiplied by √d_model, GPT-2's
            without positions), ``blocks.N.hook_resid_pre`` (before layer N), ``blocks.N.hook_resid_mid`` (behind its
            attention) or ``blocks.N.hook_resid_post`` (after layer N, before any final norm).
        input_ids: (batch, positions) tokens.
        inputs_embeds: (batch, positions, d_model) in the place of their embeddings, as the embedding module gives them.
        attention_mask: (batch, positions), 0 where a row is padded on its right.
        cache: keys and values of what comes before, with as many rows; it grows.

    Raises:
        UserError: the model has no such place.
    """
    embedding = model.get_input_embeddings()
    device = embedding.weight.device
    input_ids = input_ids.to(device)
    if hook == EMBEDDING:
        return embedding(input_ids) if inputs_embeds is None else inputs_embeds
    module, is_input = _place(model, hook)
    read = {"input_ids": input_ids} if inputs_embeds is None else given(model, inputs_embeds.to(device), input_ids)
    mask = None if attention_mask is None else attention_mask.to(device)
    with _stopping_at(module, is_input) as seen:
        model(**read, attention_mask=mask, cache=cache, use_cache=False)
    return seen[0]


def padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids of texts, filled up on their right, and an attention mask that is 0 there: (n, longest) each."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text, dtype=torch.long), 1
    return ids, mask


def last_residuals(
    model,
    hook: str,
    change: Callable[[Tensor], Tensor],
    *,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """What comes of a change at ``hook``: the stream after the last layer, before the final norm, (batch, positions,
    d_model). Gradients flow where they are enabled.

    Args:
        model, hook, input_ids, attention_mask: as in ``residuals``.
        change: from the stream at the hook, (batch, positions, d_model), to the same shape, not in place.

    Raises:
        UserError: the model has no such place, or its final norm is not found.
    """
    norm = final_norm(model)
    if norm is None:
        raise UserError(
            f"The final norm of a {type(model).__name__} is not found, so what comes of a change in it cannot be read. "
            "Use another model."
        )
    embedding = model.get_input_embeddings()
    input_ids = input_ids.to(embedding.weight.device)
    mask = None if attention_mask is None else attention_mask.to(input_ids.device)
    with ExitStack() as stack:
        if hook == EMBEDDING:
            read = given(model, change(embedding(input_ids)), input_ids)
        else:
            read = {"input_ids": input_ids}
            stack.enter_context(changed(model, hook, change))
        seen = stack.enter_context(_stopping_at(norm, is_input=True))
        model(**read, attention_mask=mask, use_cache=False)
    return seen[0]


def final_norm(model) -> nn.Module | None:
    """The norm after the last layer, whose input is the last residual."""
    decoder = model.get_decoder()
    return next((norm for name in _FINAL_NORMS if (norm := getattr(decoder, name, None)) is not None), None)


def _place(model, hook: str) -> tuple[nn.Module, bool]:
    """The module at whose input (True) or output (False) the stream is that ``hook`` names."""
    match = _HOOK.fullmatch(hook)
    if not match:
        raise UserError(
            f"{shown(hook)} is no place on the residual stream. Valid are hook_embed, blocks.N.hook_resid_pre, "
            "blocks.N.hook_resid_mid and blocks.N.hook_resid_post, N being a layer."
        )
    layers = model_layers(model)
    n_streams = getattr(model.config.get_text_config(), "altup_num_inputs", 1)
    if n_streams > 1:
        raise UserError(
            f"The layers of a {type(model).__name__} carry {n_streams} streams beside each other (AltUp), so there is "
            f"no residual stream at {hook} to read or to change. Of such a model hook_embed alone can be read; trees "
            "and lists that need no more than the SAE's weights work."
        )
    if int(match[1]) >= len(layers):
        raise UserError(
            f"The model has no {hook}: its {len(layers)} layers are numbered 0 to {len(layers) - 1}. Choose an SAE "
            "that was trained on this model."
        )
    layer = layers[int(match[1])]
    if match[2] != "mid":
        return layer, match[2] == "pre"
    norm = next((getattr(layer, name) for name in _NORMS_BEFORE_MLP if hasattr(layer, name)), None)
    if norm is None or getattr(layer, "use_parallel_residual", False):
        raise UserError(
            f"The model has no {hook}: in its layers there is no place between attention and MLP (a "
            f"{type(layer).__name__}). Choose an SAE on hook_resid_pre or hook_resid_post."
        )
    return norm, True


def model_layers(model) -> nn.ModuleList:
    """A causal LM's layers; of a model that also sees, those of its language model.

    Raises:
        UserError: they are not to be found.
    """
    n_layers = model.config.get_text_config().num_hidden_layers
    # Outer modules come before inner ones: a layer's own list (its experts) does not pass for the layers.
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return module
    raise UserError(f"The layers of a {type(model).__name__} are not found, so it cannot be read. Use another model.")


def tokens_for_way_back(model, graph_bytes: int | None = None) -> int:
    """Of how many tokens a forward pass through all layers can keep what the way back takes, about.

    Args:
        graph_bytes: memory for that; None: what suits the device.
    """
    weight = model.get_input_embeddings().weight
    limit = graph_bytes or GRAPH_BYTES["cpu" if weight.device.type == "cpu" else "cuda"]
    return limit // (_KEPT * weight.shape[1] * len(model_layers(model)) * weight.element_size())


@contextmanager
def changed(model, hook: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """This thread's passes inside the block go on with what ``change`` makes of the stream at ``hook``.

    Blocks may lie inside each other; of two at the same place the inner one gets what the outer one made.

    Args:
        hook: as in ``residuals``, but for ``hook_embed``: embeddings are changed before they are given to the model.
        change: from (batch, positions, d_model) to the same shape, not in place.

    Raises:
        UserError: the model has no such place.
    """
    module, is_input = _place(model, hook)
    if not hook.endswith("_mid"):
        with _hooked(module, is_input, change):
            yield
        return
    # There the layer has taken the stream aside already, to add the MLP's output to it: what the change adds must
    # be added there too.
    added = []

    def before_mlp(stream: Tensor) -> Tensor:
        after = change(stream)
        added.append(after - stream)
        return after

    layer = model_layers(model)[int(hook.split(".")[1])]
    with _hooked(module, is_input, before_mlp), _hooked(layer, False, lambda stream: stream + added.pop()):
        yield


@contextmanager
def _stopping_at(module: nn.Module, is_input: bool) -> Iterator[list[Tensor]]:
    """A forward pass inside the block ends at ``module``; the list then holds the module's input or output."""
    seen = []

    def see(stream: Tensor) -> Tensor:
        seen.append(stream)
        raise _SeenError

    try:
        with _hooked(module, is_input, see):
            yield seen
    except _SeenError:
        pass


@contextmanager
def _hooked(module: nn.Module, is_input: bool, act: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """This thread's passes inside the block go on with what ``act`` makes of the module's input or output.

    Other threads' passes through the same module go on undisturbed and unseen.
    """
    mine = threading.get_ident()

    def on_input(_module, args, kwargs):
        if threading.get_ident() != mine:
            return None
        if args:
            return (act(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": act(kwargs["hidden_states"])}

    def on_output(_module, _args, output):
        if threading.get_ident() != mine:
            return None
        return (act(output[0]), *output[1:]) if isinstance(output, tuple) else act(output)

    with _HOOKS_CHANGE:
        if is_input:
            handle = module.register_forward_pre_hook(on_input, with_kwargs=True)
        else:
            handle = module.register_forward_hook(on_output)
    try:
        yield
    finally:
        with _HOOKS_CHANGE:
            handle.remove()
