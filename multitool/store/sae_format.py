"""What every format of SAEs has: its files, what they tell, and the checks on their matrices.

The formats themselves: ``saelens_format``, ``other_formats``; which one a folder is in: ``sae_formats``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitool.errors import UserError
from multitool.store.entries import parse_hook
from multitool.store.sae_files import Weights, read_json

if TYPE_CHECKING:
    from torch import Tensor

Matrices = tuple["Tensor", "Tensor"]  # W_enc (d_model, d_sae) and W_dec (d_sae, d_model), as stored
Parts = tuple[dict[str, Any], dict[str, "Tensor"]]  # configuration and weights as sae-lens' classes name them

_HOOK_FIELDS = (
    "metadata.hook_name", "hook_name", "hook_point", "metadata.hf_hook_name", "hf_hook_name", "hf_hook_point_in",
    "hook_point_in",
)
_MODEL_FIELDS = ("metadata.model_name", "model_name", "trainer.lm_name", "model")
SINCE_6 = {"sae_lens_version": "6.0.0"}  # by which sae-lens takes a configuration as it is


@dataclass(frozen=True)
class Config:
    """The JSON files that tell of an SAE; where two tell the same, the first counts."""

    files: tuple[tuple[Path, dict], ...]

    def find(self, names: tuple[str, ...], kind: type = str) -> tuple[Any, str]:
        """The first of these fields that has a value of a kind, and where it stands; (None, "") if there is none."""
        for path, content in self.files:
            for name in names:
                value: Any = content
                for part in name.split("."):
                    value = value.get(part) if isinstance(value, dict) else None
                if type(value) is kind and value != "":
                    return value, f"{name} in {path}"
        return None, ""

    def get(self, *names: str, kind: type = str) -> Any:
        """The value alone."""
        return self.find(names, kind)[0]


@dataclass(frozen=True)
class Told:
    """What a folder tells of its SAE without its weights."""

    kind: str  # as in ``SaeEntry``
    layer: int | None
    hook: str  # as it is named there; empty where it is not
    told_by: str  # the field and the file that name it; empty where folders' names or nothing do
    looked_in: str  # where it was looked for
    model: str
    d_sae: int | None
    l0: float | None
    neuronpedia_id: str | None


@dataclass(frozen=True)
class SaeFormat:
    """A format; ``sae_formats.FORMATS`` has them all."""

    name: str
    made_of: str  # its files, in words
    weights: str  # the file by which it is recognised
    directions: Callable[[Path], Matrices]
    parts: Callable[[Path, str], Parts]  # of an SAE of that kind, as in ``SaeEntry``
    configs: tuple[str, ...] = ("cfg.json", "config.json")
    needs_cfg: bool = False
    # The hook where none of the usual fields names it, and the field and file that do; empty where folders' names do.
    place: Callable[[Path, Config], tuple[str, str]] = field(default=lambda folder, config: ("", ""))
    model: Callable[[Path, Config], str] = field(default=lambda folder, config: "")  # where no field names it
    width: Callable[[Path, Config], int | None] = field(
        default=lambda folder, config: config.get("d_sae", "num_latents", "trainer.dict_size", kind=int)
    )

    def config(self, folder: Path) -> Config:
        """Its JSON files that are there. Raises UserError if one cannot be read, or is missing that must be there."""
        there = [folder / name for name in self.configs if self.needs_cfg or (folder / name).exists()]
        return Config(tuple((path, read_json(path)) for path in there))

    def told(self, folder: Path, config: Config | None = None) -> Told:
        """What it tells; of an SAE in memory by its configuration. Raises UserError if a file of it cannot be read."""
        config = config or self.config(folder)
        named = [found for name in _HOOK_FIELDS if (found := config.find((name,)))[1]] or [self.place(folder, config)]
        hooks = [(_layer_filled_in(hook, config), by) for hook, by in named]
        hook, by = next((one for one in hooks if parse_hook(one[0])[0] != "unknown"), hooks[0])
        kind, layer = parse_hook(hook)
        width = self.width(folder, config)
        return Told(
            kind=_other_kind(config) or kind,
            layer=layer,
            hook=hook,
            told_by=by,
            looked_in=_looked_in(self, folder),
            # Gemma Scope 2 names its models in a way of its own; on the hub the smallest has no -pt.
            model=re.sub("^gemma-v3-", "google/gemma-3-", _name(config, *_MODEL_FIELDS) or self.model(folder, config))
            .replace("google/gemma-3-270m-pt", "google/gemma-3-270m"),
            d_sae=width if type(width) is int and 0 < width < 1 << 40 else None,
            l0=_l0(config),
            neuronpedia_id=_name(config, "metadata.neuronpedia_id", "neuronpedia_id"),
        )


def _l0(config: Config) -> float | None:
    """How many features fire at a token on average; of TopK SAEs k."""
    told = config.get("metadata.l0", kind=float) or config.get("l0", "k", kind=int) or 0
    return round(float(told), 2) if 0 < told < 1 << 40 else None


def _name(config: Config, *fields: str) -> str | None:
    """A name that a configuration tells; what is longer than any is none."""
    found = config.get(*fields)
    return found if found and len(found) <= 200 else None


def _looked_in(kind: SaeFormat, folder: Path) -> str:
    files = " or ".join(kind.configs)
    return f"none of {', '.join(_HOOK_FIELDS[:4])} in {files} of {folder}"


def _layer_filled_in(hook: str, config: Config) -> str:
    """sae-lens once wrote ``blocks.{layer}.hook_resid_pre``, and the layer beside it."""
    layer = config.get("hook_point_layer", "hook_layer", kind=int)
    return hook if layer is None else hook.replace("{layer}", str(layer)[:10])


def _other_kind(config: Config) -> str | None:
    """What an SAE's configuration says of dictionaries that are no SAEs."""
    names = f"{config.get('architecture')} {config.get('trainer.dict_class')} {config.get('dict_class')}".lower()
    if "crosscoder" in names:
        return "crosscoder"
    flagged = any(config.get(name, kind=bool) for name in ("is_transcoder", "transcode", "skip_connection"))
    beyond = config.get("metadata.hook_name_out", "hook_name_out", "out_hook_point", "hf_hook_point_out")
    read = config.get(*_HOOK_FIELDS)
    elsewhere = beyond not in (None, read) and not (
        read and parse_hook(beyond) == parse_hook(read) and parse_hook(read)[0] != "unknown")
    if "transcoder" in names or flagged or elsewhere or config.get("buffer.io") == "in_and_out":
        return "transcoder"
    return None


# What every format's matrices must be


def fitting(weights: Weights, enc: str, dec: str, *, enc_rows: bool = False, dec_columns: bool = False) -> Matrices:
    """Two matrices, once their shapes and types fit together. Raises UserError if they do not.

    Args:
        enc_rows: the encoder's rows are the features, as in a ``torch.nn.Linear``.
        dec_columns: the decoder's columns are the features, likewise.
    """
    weights.have(enc, dec)
    shapes = weights.headers[enc].shape, weights.headers[dec].shape
    wanted = ("(d_sae, d_model)" if enc_rows else "(d_model, d_sae)",
              "(d_model, d_sae)" if dec_columns else "(d_sae, d_model)")
    enc_shape, dec_shape = shapes[0][::-1] if enc_rows else shapes[0], shapes[1][::-1] if dec_columns else shapes[1]
    if len(enc_shape) != 2 or enc_shape != dec_shape[::-1] or not all(enc_shape):
        raise UserError(
            f"{weights.path}: {enc} is {shapes[0]} and {dec} {shapes[1]}, which do not fit together: they must be "
            f"{wanted[0]} and {wanted[1]}."
        )
    weights.matrix(enc)
    weights.matrix(dec)
    W_enc, W_dec = weights.read(enc), weights.read(dec)
    return W_enc.T if enc_rows else W_enc, W_dec.T if dec_columns else W_dec


def not_read(sae: Path | str, reason: str) -> UserError:
    """What is said of an SAE whose directions are read, and its activations not.

    Args:
        sae: its folder, or its name.
    """
    named = f"the SAE in {sae}" if isinstance(sae, Path) else f"SAE {sae}"
    return UserError(
        f"The activations of {named} are not read: {reason}. Its directions are: take the weights encoder, "
        "decoder or mix, and no evidence."
    )


def plain_cfg(architecture: str, W_dec: "Tensor", *, subtracts: bool, **more) -> dict:
    """A configuration for one of sae-lens' classes.

    Args:
        subtracts: whether b_dec is taken off the input.
    """
    d_sae, d_in = W_dec.shape
    return {"architecture": architecture, "d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": subtracts,
            "normalize_activations": "none", "metadata": dict(SINCE_6)} | more


def named(weights: Weights, folder: Path, **names: str) -> dict[str, "Tensor"]:
    """Tensors under sae-lens' names. Raises UserError if one is missing."""
    missing = [name for name in names.values() if name not in weights]
    if missing:
        raise not_read(folder, f"{weights.path.name} has no {missing[0]}")
    return {ours: weights.read(theirs) for ours, theirs in names.items()}
