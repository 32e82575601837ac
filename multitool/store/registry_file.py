"""sae-lens' registry of SAEs: what each one was trained on and where its files lie, as its names and paths tell it.

Read as a file: importing sae-lens takes seconds.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from multitool.store.entries import SERVED_KINDS, SaeEntry, hub_id, registry_facts


@cache
def registry_saes() -> dict[str, SaeEntry]:
    """Every SAE of sae-lens' registry by name, those that cannot be served included."""
    spec = find_spec("sae_lens")
    assert spec and spec.origin
    path = Path(spec.origin).with_name("pretrained_saes.yaml")
    with path.open(encoding="utf-8") as file:
        releases = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    entries = (entry for release, listed in releases.items() for entry in _release_entries(release, listed))
    return {entry.name: entry for entry in entries}


def _release_entries(release: str, listed: dict) -> Iterable[SaeEntry]:
    model = registry_facts()["corrected_models"].get(release, listed["model"])
    loader, repo_id = listed.get("conversion_func"), listed["repo_id"]
    for sae in listed["saes"]:
        sae_id, path, neuronpedia_id = str(sae["id"]), str(sae["path"]), sae.get("neuronpedia")
        kind, layer = _parse_registry_id(loader, repo_id, sae_id, path)
        yield SaeEntry(
            release=release,
            sae_id=sae_id,
            model=hub_id(model),
            kind=kind,
            layer=layer,
            neuronpedia_id=neuronpedia_id,
            d_sae=_width(release, f"{repo_id}/{path}", neuronpedia_id) if kind in SERVED_KINDS else None,
            l0=_l0(sae.get("l0"), path),
            repo_id=repo_id,
            path=path,
            loader=loader,
        )


def _width(release: str, place: str, neuronpedia_id: str | None) -> int | None:
    """Number of features of an SAE on the residual stream, as far as names tell it.

    Args:
        place: repository and path on the hub.
    """
    names = f"{place} {neuronpedia_id or ''}"
    # width_16k, w-32k and v5_128k in places; -res-65k in Neuronpedia's ids.
    if match := re.search(r"(?:width_|w-|v5_|-res-)(\d+[km])(?![a-z0-9])", names):
        return registry_facts()["rounded_widths"].get(match[1])
    if match := re.search(r"width-2pow(\d+)_", place):
        return 2 ** int(match[1])
    if match := re.search(r"-W(\d+)K-L0_", place):  # Qwen Scope
        return int(match[1]) * 1024
    if match := re.search(r"hook_resid_(?:pre|post)_(\d+)", place):
        return int(match[1])
    return registry_facts()["release_widths"].get(release)


def _l0(told: float | None, path: str) -> float | None:
    """How many features of an SAE fire at a token on average: as the registry tells, or else the path (canonical ones
    of Gemma Scope lie in folders of such names)."""
    if told:
        return float(told)
    match = re.search(r"average_l0_(\d+)", path)
    return float(match[1]) if match else None


def _parse_registry_id(loader: str | None, repo_id: str, sae_id: str, path: str) -> tuple[str, int | None]:
    """(kind, layer) of a registry entry. Each of sae-lens' loaders names its hooks in its own way."""
    layer_match = re.search(r"(?:blocks\.|layer_?|^l)(\d+)", sae_id)
    layer = int(layer_match[1]) if layer_match else None
    match loader:
        case None:
            return _hook_in(sae_id)
        case "gemma_3":
            place = re.match(r"(resid_post|attn_out|mlp_out|transcoder|clt)", path)
            # Gemma Scope's attention SAEs read the heads before their output projection.
            kinds = {"attn_out": "attn_z", "clt": "transcoder"}
            return (kinds.get(place[1], place[1]) if place else "unknown"), layer
        case "gemma_2":
            if path.startswith("embedding"):
                return "embed", None
            suffix = re.search(r"-(res|mlp|att)$", repo_id)
            kinds = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_z"}
            return (kinds[suffix[1]] if suffix else "unknown"), layer
        case "llama_scope" | "llama_scope_r1_distill":
            place = re.match(r"l\d+([rma])", sae_id)
            return {"r": "resid_post", "m": "mlp_out", "a": "attn_out"}.get(place[1] if place else "", "unknown"), layer
        case "dictionary_learning_1" | "qwen_scope" | "temporal" | "goodfire" | "deepseek_r1":
            return "resid_post", layer
        case "connor_rob_hook_z":
            return "attn_z", layer
        case _ if "transcoder" in loader:
            return "transcoder", layer
    return "unknown", layer


def _hook_in(sae_id: str) -> tuple[str, int | None]:
    """(kind, layer) of the hook that stands somewhere in the id of an SAE, in TransformerLens' naming."""
    if re.search(r"(^|[./])hook_embed\b", sae_id):
        return "embed", None
    match = re.search(r"blocks\.(\d{1,4})\.(?:attn\.)?hook_(resid_pre|resid_mid|resid_post|mlp_out|attn_out|z)", sae_id)
    if not match:
        return "unknown", None
    return {"z": "attn_z"}.get(match[2], match[2]), int(match[1])
