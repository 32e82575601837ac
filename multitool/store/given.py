"""Models and SAEs that are loaded already, given as objects in place of names.

A model is run as it is: its weights are never written, and no second copy of them is made. Of an SAE's weights none is
made where they are float32 on the processor.
"""

import hashlib
import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from multitool.errors import UserError, shown
from multitool.model.subject import Subject
from multitool.store.encoder import Encoder, encoder_of
from multitool.store.entries import SERVED_KINDS, SaeEntry, hub_id, parse_hook
from multitool.store.folders import HOOKS, cache_folder
from multitool.store.sae_format import Config
from multitool.store.saelens_format import SAE_LENS
from multitool.store.saes import Sae

MINE = "mine"  # in the place of a release
_NUMBERS = itertools.count()
_TRIED = 6  # tokens
_OTHERWISE = 0.2  # of the probability lies elsewhere; rounding in bfloat16 moves a few hundredths
_SAMPLE = 256  # numbers of a tensor that tell where its others stand


@dataclass(frozen=True)
class GivenModel:
    """A running model that somebody else loaded."""

    model: Any  # a transformers causal LM
    subject: Subject

    @property
    def dtype(self) -> str:
        """The precision that it runs in."""
        return str(self.model.dtype).removeprefix("torch.")

    def running(self):
        """The model, for one task. Raises UserError where it would answer at random."""
        if self.model.training:
            raise UserError(
                f"The model {self.subject.name} is in training mode, in which dropout makes every answer another one. "
                "Call model.eval() before."
            )
        return self.model


@dataclass(frozen=True)
class GivenSae:
    """An SAE that somebody else loaded."""

    sae: Any  # sae-lens' own
    entry: SaeEntry
    number: int = field(default_factory=lambda: next(_NUMBERS))  # by which what is kept of it is told from another's

    def directions(self) -> Sae:
        """Its directions, in memory of the processor."""
        W_dec = self.sae.W_dec.detach().cpu()
        W_enc = getattr(self.sae, "W_enc", None)  # an SAE with tied weights has only the decoder's
        return Sae(self.entry, W_dec.T if W_enc is None else W_enc.detach().cpu(), W_dec)

    def encoder(self) -> Encoder:
        """Itself, to read with. Raises UserError where sae-lens cannot say how it reads."""
        return encoder_of(self.entry, self.sae)


def given_model(model, tokenizer=None, name: str | None = None) -> GivenModel:
    """A model to be run as it is.

    Args:
        model: a transformers causal LM, or a TransformerLens bridge, which holds one.
        tokenizer: the model's fast tokenizer; None: the bridge's own.
        name: how results call it; None: by where transformers loaded it from.

    Raises:
        UserError: it is no such model, or its tokenizer is missing or slow.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        tokenizer = tokenizer or getattr(model, "tokenizer", None)
        model = _inside(model)
    if not isinstance(model, PreTrainedModel) or not hasattr(model, "get_decoder") or (
            model.get_output_embeddings() is None):
        raise UserError(
            f"model is a {type(model).__name__}; it must be a causal language model of transformers (as "
            "AutoModelForCausalLM.from_pretrained gives it), or a TransformerLens bridge."
        )
    if tokenizer is None or not getattr(tokenizer, "is_fast", False):
        told = "is missing" if tokenizer is None else f"is a {type(tokenizer).__name__}"
        raise UserError(f"tokenizer {told}; give the model's fast one, as AutoTokenizer.from_pretrained gives it.")
    E = model.get_input_embeddings().weight.detach().cpu()
    name = name or hub_id(model.config.name_or_path) or f"{MINE}/{model.config.model_type}"
    folder = cache_folder() / MINE / _hash_of(model)  # there is none: it tells what is kept of these weights
    subject = Subject(E, tokenizer, model.config, name, folder, getattr(model, "generation_config", None))
    found = GivenModel(model, subject)
    _check_cache(found.running(), subject)
    return found


@torch.inference_mode()
def _check_cache(model, subject: Subject) -> None:
    """That a model reads on from what it keeps of earlier tokens, by which trees grow.

    Raises:
        UserError: it says something else then: what wraps its layers loses what they are to keep.
    """
    ids = torch.tensor([subject.base_ids[:_TRIED]], device=model.get_input_embeddings().weight.device)
    kept = model(input_ids=ids[:, :-1], use_cache=True).cache
    answers = (model(input_ids=ids), model(input_ids=ids[:, -1:], cache=kept, use_cache=True))
    whole, continued = (answer.logits[0, -1].float().softmax(dim=-1) for answer in answers)
    if not (whole - continued).abs().sum() / 2 < _OTHERWISE:
        raise UserError(
            f"The model {subject.name} forgets earlier tokens where it reads on from what it keeps of them, so no tree "
            "can be grown with it. What wraps its layers does not fit this version of transformers (TransformerLens' "
            "bridge of version 3.9 does not). Load the transformers model anew, and give that."
        )


def _inside(model):
    """The transformers model in one of TransformerLens'. Raises UserError where there is none, or none as it was."""
    if type(model).__name__.startswith("Hooked"):
        raise UserError(
            f"model is a {type(model).__name__}, which holds TransformerLens' own copy of the weights (layer norms "
            "folded in, and more), and no transformers model to run. Give a bridge (as "
            "TransformerBridge.boot_transformers makes it) or the transformers model itself; or give none: an SAE's "
            "model is loaded by its name."
        )
    if getattr(model, "compatibility_mode", False):
        raise UserError(
            "model is a TransformerLens bridge in compatibility mode, whose weights are no longer those that SAEs and "
            "vectors of the model know. Give the bridge as TransformerBridge.boot_transformers makes it."
        )
    return getattr(model, "original_model", model)


def _hash_of(model) -> str:
    """What changes when any weight of a model does: 16 hexadecimal digits."""
    told = hashlib.sha256(model.config.to_json_string().encode())
    for name, weight in model.state_dict().items():
        bits = weight.detach().view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.itemsize])
        flat = bits.flatten() if bits.is_contiguous() else bits.reshape(-1)
        sample = flat[:: max(1, len(flat) // _SAMPLE)].cpu().numpy().tobytes()
        # Whole numbers add up to the same in any order, on any machine.
        told.update(f"{name} {tuple(weight.shape)} {weight.dtype} {int(flat.sum(dtype=torch.int64))}".encode() + sample)
    return told.hexdigest()[:16]


def given_sae(sae, name: str | None, *, model: str | None, hook: str | None) -> GivenSae:
    """An SAE as an object of sae-lens.

    Args:
        name: how recipes call it; None: by its hook.
        model, hook: where it reads, where the SAE does not say so itself.

    Raises:
        UserError: it is none, or it is not known which model it reads, or where.
    """
    from sae_lens import SAE

    if not isinstance(sae, SAE):
        raise UserError(
            f"sae is a {type(sae).__name__}; it must be a sae_lens.SAE. Other SAEs are read from their folders: name "
            "the folder, with Library(allow_folder=True)."
        )
    config = Config(((Path("cfg"), sae.cfg.to_dict()),))
    told = SAE_LENS.told(Path("of the SAE"), config)
    kind, layer = told.kind, told.layer
    if hook and kind in (*SERVED_KINDS, "unknown"):
        kind, layer = parse_hook(hook)
    if kind not in SERVED_KINDS:
        where = shown(hook or told.hook) if hook or told.hook else "at a place that its cfg.metadata does not name"
        raise UserError(
            f"The SAE reads {where}, and features of the residual stream alone have definitions. Valid for hook= are "
            f"{HOOKS}."
        )
    entry = SaeEntry(
        release=MINE, sae_id=hook or told.hook, model=hub_id(model or told.model or ""), kind=kind, layer=layer,
        neuronpedia_id=told.neuronpedia_id, d_sae=sae.cfg.d_sae,
    )
    if not entry.model:
        raise UserError(
            "The SAE does not say which model it was trained on (model_name in its cfg.metadata). Name it with model=, "
            "as add_model gives it or by its hub id."
        )
    if name:
        release, _, sae_id = name.rpartition("/")
        entry = replace(entry, release=release or MINE, sae_id=sae_id)
    return GivenSae(sae, entry)
