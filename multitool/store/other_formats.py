"""Formats of SAEs other than sae-lens': sparsify, dictionary_learning, Gemma Scope, and a file of two matrices.

The arithmetic of activations is that of sae-lens' classes, which get weights under their own names.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from multitool.errors import UserError, shown
from multitool.store.entries import parse_hook
from multitool.store.sae_files import Weights, npz_file, pickle_file, read_json, safetensors_file
from multitool.store.sae_format import Config, Matrices, Parts, SaeFormat, fitting, named, not_read, plain_cfg

if TYPE_CHECKING:
    from torch import Tensor

# sparsify


def _sparsify_weights(folder: Path) -> Weights:
    return safetensors_file(folder / "sae.safetensors")


def _sparsify_directions(folder: Path) -> Matrices:
    return fitting(_sparsify_weights(folder), "encoder.weight", "W_dec", enc_rows=True)


def _sparsify_parts(folder: Path, kind: str) -> Parts:
    config, weights = SPARSIFY.config(folder), _sparsify_weights(folder)
    k, activation = config.get("k", kind=int), config.get("activation") or "topk"
    if config.get("signed", kind=bool):
        raise not_read(folder, f"its TopK is signed by {folder / 'cfg.json'}, so that features fire below zero too")
    if activation != "topk":
        raise not_read(folder, f"its activation is {shown(activation)} by {folder / 'cfg.json'}; TopK is read")
    if k is None or k < 1:
        raise not_read(folder, f"{folder / 'cfg.json'} has no k (a whole number from 1 up)")
    W_enc, W_dec = _sparsify_directions(folder)
    state = named(weights, folder, b_enc="encoder.bias", b_dec="b_dec") | {"W_enc": W_enc, "W_dec": W_dec}
    return plain_cfg("topk", W_dec, subtracts=True, k=k), state


def _sparsify_place(folder: Path, config: Config) -> tuple[str, str]:
    """sparsify names an SAE's folder after the module at whose output it reads."""
    name = folder.resolve().name
    return (name if parse_hook(name)[0] != "unknown" else ""), ""


def _sparsify_model(folder: Path, config: Config) -> str:
    """The run's configuration lies beside the folders of its SAEs."""
    path = folder.resolve().parent / "config.json"
    return (Config(((path, read_json(path)),)).get("model") or "") if path.is_file() else ""


def _sparsify_width(folder: Path, config: Config) -> int | None:
    d_in, factor = config.get("d_in", kind=int), config.get("expansion_factor", kind=int)
    return config.get("num_latents", kind=int) or (d_in * factor if d_in and factor else None)


SPARSIFY = SaeFormat(
    "sparsify", "cfg.json and sae.safetensors", "sae.safetensors", _sparsify_directions, _sparsify_parts,
    configs=("cfg.json",), place=_sparsify_place, model=_sparsify_model, width=_sparsify_width,
)


# dictionary_learning


def _dictionary_matrices(weights: Weights) -> Matrices:
    if "W_enc" in weights:
        return fitting(weights, "W_enc", "W_dec")
    return fitting(weights, "encoder.weight", "decoder.weight", enc_rows=True, dec_columns=True)


def _dictionary_directions(folder: Path) -> Matrices:
    return _dictionary_matrices(pickle_file(folder / "ae.pt"))


def _dictionary_parts(folder: Path, kind: str) -> Parts:
    """As in dictionary_learning's ``dictionary.py``, class by class."""
    from torch import full

    config, weights = DICTIONARY.config(folder), pickle_file(folder / "ae.pt")
    W_enc, W_dec = _dictionary_matrices(weights)
    state: dict[str, Tensor] = {"W_enc": W_enc, "W_dec": W_dec}
    dict_class, told_by = config.find(("trainer.dict_class", "dict_class"))
    match dict_class:
        case "AutoEncoder":
            state |= named(weights, folder, b_enc="encoder.bias", b_dec="bias")
            return plain_cfg("standard", W_dec, subtracts=True), state
        case "AutoEncoderNew":
            state |= named(weights, folder, b_enc="encoder.bias", b_dec="decoder.bias")
            return plain_cfg("standard", W_dec, subtracts=False), state
        case "GatedAutoEncoder":
            state |= named(weights, folder, b_gate="gate_bias", b_mag="mag_bias", r_mag="r_mag", b_dec="decoder_bias")
            return plain_cfg("gated", W_dec, subtracts=True), state
        case "JumpReluAutoEncoder":
            state |= named(weights, folder, b_enc="b_enc", b_dec="b_dec", threshold="threshold")
            return plain_cfg("jumprelu", W_dec, subtracts=False), state
        case "AutoEncoderTopK" | "BatchTopKSAE" | "MatryoshkaBatchTopKSAE":
            bias = "b_enc" if "b_enc" in weights else "encoder.bias"
            b_dec = "bias" if "bias" in weights else "b_dec"  # its earlier name
            state |= named(weights, folder, b_enc=bias, b_dec=b_dec)
            if dict_class == "AutoEncoderTopK":
                k = config.get("trainer.k", kind=int) or int(named(weights, folder, k="k")["k"])
                return plain_cfg("topk", W_dec, subtracts=True, k=k), state
            # Its threshold is what it reads by once it is trained.
            threshold = named(weights, folder, threshold="threshold")["threshold"]
            if threshold.ndim == 0 and float(threshold) < 0:
                raise not_read(folder, "its threshold in ae.pt is below zero, as it is before it has been trained")
            state["threshold"] = full((len(W_dec),), float(threshold)) if threshold.ndim == 0 else threshold
            return plain_cfg("jumprelu", W_dec, subtracts=True), state
        case None:
            raise not_read(folder, "no dict_class in its config.json tells which class of dictionary_learning it is")
    raise not_read(folder, f"{told_by} is {shown(dict_class)}, and that class is not read")


_SUBMODULE = re.compile(r"(resid_pre|resid_mid|resid_post|mlp_out|attn_out)_layer_?([0-9]{1,4})")


def _dictionary_place(folder: Path, config: Config) -> tuple[str, str]:
    """The submodule that an SAE was trained on, by its configuration or by a folder that is named after it, as in
    ``resid_post_layer_3/trainer_10``. The number of its layer alone does not tell the place in it.
    """
    name, by = config.find(("trainer.submodule_name", "submodule_name"))
    if name is None:
        name = next((part for part in reversed(folder.resolve().parts) if _SUBMODULE.fullmatch(part)), None)
    if match := _SUBMODULE.fullmatch(name or ""):
        name = f"blocks.{match[2]}.hook_{match[1]}"
    elif config.get("buffer.io") == "in" and parse_hook(name or "")[0] == "resid_post":
        name = f"{name}.input"
    return name or "", by


DICTIONARY = SaeFormat(
    "dictionary_learning", "config.json and ae.pt", "ae.pt", _dictionary_directions, _dictionary_parts,
    place=_dictionary_place,
)


# Gemma Scope


def _scope_weights(folder: Path) -> tuple[Weights, str]:
    """With the prefix of its matrices' names: some have W_enc, some w_enc."""
    path = folder / "params.npz"
    weights = npz_file(path) if path.exists() else safetensors_file(folder / "params.safetensors")
    return weights, "w_" if "w_enc" in weights else "W_"


def _scope_directions(folder: Path) -> Matrices:
    weights, W = _scope_weights(folder)
    return fitting(weights, f"{W}enc", f"{W}dec")


def _scope_parts(folder: Path, kind: str) -> Parts:
    weights, _ = _scope_weights(folder)
    state = named(weights, folder, b_enc="b_enc", b_dec="b_dec", threshold="threshold")
    W_enc, W_dec = _scope_directions(folder)
    if kind == "embed":  # trained on embeddings times the root of d_model, as Gemma's layers get them
        root = math.sqrt(W_enc.shape[0])
        W_enc, W_dec = W_enc / root, W_dec * root
    return plain_cfg("jumprelu", W_dec, subtracts=False), state | {"W_enc": W_enc, "W_dec": W_dec}


# Transcoders read what the norm before the MLP makes of the stream.
_SCOPE_PARTS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "hook_z", "transcoders": "ln2.hook_normalized"}
_SCOPE_REPOSITORY = re.compile(rf"gemma-scope-(2b|9b|27b)-(pt|it)-({'|'.join(_SCOPE_PARTS)})")


_SCOPE_LAYER = re.compile(r"(?:^|[/\\])layer_([0-9]{1,4})(?=[/\\_]|$)")


def _scope_place(folder: Path, config: Config) -> tuple[str, str]:
    """The folders' names tell it: the repository's which part of a layer, and those in it which layer."""
    path = str(folder.resolve())
    layer = _SCOPE_LAYER.search(path)
    repository = _SCOPE_REPOSITORY.search(path)
    if "embedding" in folder.resolve().parts:
        return "hook_embed", ""
    if not layer or not repository:
        return "", ""
    return f"blocks.{layer[1]}.{_SCOPE_PARTS[repository[3]]}", ""


def _scope_model(folder: Path, config: Config) -> str:
    repository = _SCOPE_REPOSITORY.search(str(folder.resolve()))
    return f"google/gemma-2-{repository[1]}{'-it' * (repository[2] == 'it')}" if repository else ""


def _scope_width(folder: Path, config: Config) -> int | None:
    weights, W = _scope_weights(folder)
    return weights.matrix(f"{W}dec")[0]


SCOPE = SaeFormat(
    "Gemma Scope", "params.npz", "params.npz", _scope_directions, _scope_parts,
    place=_scope_place, model=_scope_model, width=_scope_width,
)
_SCOPE_2_REPOSITORY = re.compile(r"gemma-scope-2-(270m|1b|4b|12b|27b)-(pt|it)")
_SCOPE_2_PART = re.compile(r"(?:^|[/\\])(resid_post|mlp_out|attn_out|transcoder)(?:_all)?[/\\]")


def _scope_2_place(folder: Path, config: Config) -> tuple[str, str]:
    """As ``_scope_place``: some folders have no config.json."""
    path = str(folder.resolve())
    part, layer = _SCOPE_2_PART.search(path), _SCOPE_LAYER.search(path)
    if not part or not layer or not _SCOPE_2_REPOSITORY.search(path):
        return "", ""
    return f"blocks.{layer[1]}." + ("hook_mlp_in" if part[1] == "transcoder" else f"hook_{part[1]}"), ""


def _scope_2_model(folder: Path, config: Config) -> str:
    repository = _SCOPE_2_REPOSITORY.search(str(folder.resolve()))
    return f"google/gemma-3-{repository[1]}-{repository[2]}" if repository else ""


SCOPE_2 = replace(SCOPE, name="Gemma Scope 2", made_of="config.json and params.safetensors",
                  weights="params.safetensors", place=_scope_2_place, model=_scope_2_model)


# A file of two matrices


_PAIRS = (("W_enc", "W_dec"), ("w_enc", "w_dec"), ("encoder.weight", "decoder.weight"), ("encoder.weight", "W_dec"),
          ("encoder", "decoder"))


def matrix_files(folder: Path) -> list[Path]:
    """The safetensors files in a folder that may hold an SAE's matrices; sae-lens keeps another one beside its own."""
    return [path for path in folder.glob("*.safetensors") if path.name != "sparsity.safetensors"]


def plain_pair(folder: Path) -> tuple[Weights, tuple[str, str]]:
    """The one safetensors file in a folder, and what its two matrices are called. Raises UserError if it has none."""
    weights = safetensors_file(matrix_files(folder)[0])
    pair = next((pair for pair in _PAIRS if all(name in weights for name in pair)), None)
    if pair is None:
        raise UserError(
            f"{weights.path} holds {weights.names()}. Two matrices are read from such a file, named "
            f"{', '.join(' and '.join(pair) for pair in _PAIRS)}."
        )
    return weights, pair


def _plain_directions(folder: Path) -> Matrices:
    weights, pair = plain_pair(folder)
    shapes = [weights.matrix(name) for name in pair]
    d_model = PLAIN.config(folder).get("d_in", "d_model", "activation_dim", kind=int) or min(shapes[0])
    sizes = set(shapes[0])
    if len(sizes) == 1:
        raise UserError(
            f"{weights.path}: {pair[0]} is {shapes[0]}, as wide as high, so that it cannot be told whether features "
            "are its rows or its columns. Save it in sae-lens' format."
        )
    if d_model not in sizes:
        raise UserError(f"{weights.path}: {pair[0]} is {shapes[0]}, and the configuration beside it says {d_model} "
                        "dimensions. One of the two must be wrong.")
    return fitting(weights, *pair, enc_rows=shapes[0][1] == d_model, dec_columns=shapes[1][0] == d_model)


def _plain_parts(folder: Path, kind: str) -> Parts:
    raise not_read(folder, "such a file does not tell how they are computed")


PLAIN = SaeFormat(
    "a file of two matrices", "one *.safetensors with W_enc and W_dec, or the like", "*.safetensors",
    _plain_directions, _plain_parts,
)
