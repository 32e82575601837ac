"""Which SAEs there are, what each one was trained on, and which of them the tool can serve.

Three sources: the demo's SAEs in this package, folders that the operator names, and the registry that sae-lens
ships (read as a file: importing sae-lens takes seconds). Nothing is downloaded here.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from multitool.demo_model import DEMO_MODEL
from multitool.errors import UserError, shown

DEMO_FOLDER = Path(__file__).parent / "demo"
LOCAL_SAES_VARIABLE = "SAE_MULTITOOL_SAES"

# Features of these hooks point in directions of the residual stream (or of the embedding itself).
SERVED_KINDS = ("embed", "resid_pre", "resid_mid", "resid_post")
_KIND_IN_WORDS = {
    "mlp_out": "the output of an MLP layer",
    "attn_out": "the output of an attention layer",
    "attn_z": "attention heads before their output projection",
    "transcoder": "the input of an MLP layer (a transcoder)",
    "unknown": "a place in the model that its name does not tell",
}

# Short model names of the registry and their ids on the hub; the registry's other names are ids already.
_HUB_IDS = {
    "gpt2-small": "openai-community/gpt2",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2-27b": "google/gemma-2-27b",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
}


@dataclass(frozen=True)
class SaeEntry:
    """One SAE, as far as it is known without loading it."""

    release: str
    sae_id: str
    model: str  # hub id, the demo's model, or a local folder
    kind: str  # one of SERVED_KINDS, or what else it was trained on
    layer: int | None  # None for the embedding
    neuronpedia_id: str | None = None  # as in https://neuronpedia.org/{neuronpedia_id}/{feature}
    folder: Path | None = None  # where it lies on this machine; None: on the hub

    @property
    def name(self) -> str:
        return f"{self.release}/{self.sae_id}"

    @property
    def served(self) -> bool:
        return self.kind in SERVED_KINDS

    @property
    def hook(self) -> str:
        """The hook in TransformerLens' naming."""
        return "hook_embed" if self.kind == "embed" else f"blocks.{self.layer}.hook_{self.kind}"


def saes(search: str = "") -> list[SaeEntry]:
    """The SAEs that can be served: the demo's, the operator's, the registry's.

    Args:
        search: words that must all occur in the SAE's name or its model's, in any case.
    """
    words = search.lower().split()
    entries = [*demo_saes(), *operator_saes(), *(entry for entry in registry_saes().values() if entry.served)]
    return [entry for entry in entries if all(word in f"{entry.name} {entry.model}".lower() for word in words)]


def find_sae(name: str, *, allow_folder: bool = False) -> SaeEntry:
    """The SAE of that name.

    Args:
        name: ``RELEASE/SAE_ID``.
        allow_folder: whether ``name`` may be a folder on this machine (never for what comes from a web page).

    Raises:
        UserError: there is none of that name (near matches are listed), or it is not on the residual stream.
    """
    near_by = {entry.name: entry for entry in (*demo_saes(), *operator_saes())}
    entry = near_by.get(name)
    if entry is None and allow_folder and is_folder(name):
        entry = folder_sae(Path(name))
    if entry is None:
        entry = registry_saes().get(name)
    if entry is None:
        raise UserError(_unknown(name, allow_folder))
    if not entry.served:
        raise UserError(_not_served(entry))
    return entry


@cache
def demo_saes() -> tuple[SaeEntry, ...]:
    """The SAEs in this package, the embedding's first, then by layer."""
    entries = [
        folder_sae(cfg.parent, release="demo", model=DEMO_MODEL) for cfg in DEMO_FOLDER.glob("*/cfg.json")
    ]
    return tuple(sorted(entries, key=lambda entry: -1 if entry.layer is None else entry.layer))


def operator_saes() -> tuple[SaeEntry, ...]:
    """The folders in ``$SAE_MULTITOOL_SAES`` (separated like ``$PATH``), served as ``local/FOLDER_NAME``.

    Raises:
        UserError: one of them is no SAE folder, or two have the same name.
    """
    folders = [Path(part) for part in os.environ.get(LOCAL_SAES_VARIABLE, "").split(os.pathsep) if part]
    entries = tuple(folder_sae(folder.resolve()) for folder in folders)
    if len({entry.name for entry in entries}) < len(entries):
        raise UserError(
            f"Two folders in {LOCAL_SAES_VARIABLE} have the same last name, by which a visitor would choose them. "
            "Rename one."
        )
    return entries


def is_folder(name: str) -> bool:
    """Whether there is such a folder; a name that cannot be a path is none."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def folder_sae(folder: Path, *, release: str = "local", model: str | None = None) -> SaeEntry:
    """A folder in sae-lens' format (``cfg.json`` and ``sae_weights.safetensors``).

    Raises:
        UserError: its configuration is missing or unreadable.
    """
    cfg = read_cfg(folder)
    metadata = cfg.get("metadata") if isinstance(cfg.get("metadata"), dict) else {}
    hook = str(metadata.get("hook_name") or cfg.get("hook_name") or "")
    trained_on = str(metadata.get("model_name") or cfg.get("model_name") or "")
    kind, layer = _parse_hook(hook)
    if "transcoder" in str(cfg.get("architecture", "")):
        kind = "transcoder"
    return SaeEntry(
        release=release,
        sae_id=folder.resolve().name,
        model=model or _HUB_IDS.get(trained_on, trained_on),
        kind=kind,
        layer=layer,
        neuronpedia_id=metadata.get("neuronpedia_id") or cfg.get("neuronpedia_id"),
        folder=folder,
    )


def read_cfg(folder: Path) -> dict:
    """``cfg.json`` of an SAE folder.

    Raises:
        UserError: it is missing or unreadable.
    """
    path = folder / "cfg.json"
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path} cannot be read ({reason}). An SAE folder in sae-lens format holds cfg.json and "
            "sae_weights.safetensors, as sae.save_model() writes them."
        ) from error
    if not isinstance(cfg, dict):
        raise UserError(f"{path} is not an SAE configuration: it holds no JSON object.")
    return cfg


@cache
def registry_saes() -> dict[str, SaeEntry]:
    """Every SAE of sae-lens' registry by name, those that cannot be served included."""
    path = Path(find_spec("sae_lens").origin).with_name("pretrained_saes.yaml")
    with path.open(encoding="utf-8") as file:
        releases = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    entries = (entry for release, listed in releases.items() for entry in _release_entries(release, listed))
    return {entry.name: entry for entry in entries}


def _release_entries(release: str, listed: dict) -> Iterable[SaeEntry]:
    model = listed["model"]
    for sae in listed["saes"]:
        sae_id, path = str(sae["id"]), str(sae["path"])
        kind, layer = _parse_registry_id(listed.get("conversion_func"), listed["repo_id"], sae_id, path)
        yield SaeEntry(release, sae_id, _HUB_IDS.get(model, model), kind, layer, sae.get("neuronpedia"))


def _parse_registry_id(loader: str | None, repo_id: str, sae_id: str, path: str) -> tuple[str, int | None]:
    """(kind, layer) of a registry entry. Each of sae-lens' loaders names its hooks in its own way."""
    layer_match = re.search(r"(?:blocks\.|layer_?|^l)(\d+)", sae_id)
    layer = int(layer_match[1]) if layer_match else None
    match loader:
        case None:
            return _parse_hook(sae_id)
        case "gemma_3":
            place = re.match(r"(resid_post|attn_out|mlp_out|transcoder|clt)", path)
            # Gemma Scope's attention SAEs read the heads before their output projection.
            kinds = {"attn_out": "attn_z", "clt": "transcoder"}
            return (kinds.get(place[1], place[1]) if place else "unknown"), layer
        case "gemma_2":
            if path.startswith("embedding"):
                return "embed", None
            suffix = re.search(r"-(res|mlp|att)$", repo_id)
            return {"res": "resid_post", "mlp": "mlp_out", "att": "attn_z"}.get(suffix and suffix[1], "unknown"), layer
        case "llama_scope" | "llama_scope_r1_distill":
            place = re.match(r"l\d+([rma])", sae_id)
            return {"r": "resid_post", "m": "mlp_out", "a": "attn_out"}.get(place and place[1], "unknown"), layer
        case "dictionary_learning_1" | "qwen_scope" | "temporal" | "goodfire" | "deepseek_r1":
            return "resid_post", layer
        case "connor_rob_hook_z":
            return "attn_z", layer
        case _ if "transcoder" in loader:
            return "transcoder", layer
    return "unknown", layer


def _parse_hook(hook: str) -> tuple[str, int | None]:
    """(kind, layer) of a hook in TransformerLens' naming, wherever it stands in ``hook``."""
    if re.search(r"(^|[./])hook_embed\b", hook):
        return "embed", None
    match = re.search(r"blocks\.(\d+)\.(?:attn\.)?hook_(resid_pre|resid_mid|resid_post|mlp_out|attn_out|z)", hook)
    if not match:
        return "unknown", None
    return {"z": "attn_z"}.get(match[2], match[2]), int(match[1])


def _unknown(name: str, allow_folder: bool) -> str:
    release, _, sae_id = name.partition("/")
    everything = [entry.name for entry in saes()]
    same_release = [other for other in everything if other.startswith(release + "/")] if release else []
    if same_release:
        ids = {other: other.partition("/")[2] for other in same_release}
        near = difflib.get_close_matches(sae_id, ids.values(), n=5, cutoff=0) or list(ids.values())[:5]
        hint = f"Release {release} has {', '.join(near)}" + (" and others" if len(ids) > len(near) else "")
    else:
        releases = sorted({other.partition("/")[0] for other in everything})
        near = difflib.get_close_matches(release, releases, n=5, cutoff=0.5) or ["demo", "gemma-2b-res-jb"]
        hint = f"Near releases: {', '.join(near)}"
    folder = ", or a folder in sae-lens format" if allow_folder else ""
    return f"There is no SAE {shown(name)}. Name one as RELEASE/SAE_ID{folder}. {hint}; `saes` lists them all."


def _not_served(entry: SaeEntry) -> str:
    reason = _KIND_IN_WORDS.get(entry.kind, entry.kind)
    same_model = sorted({other.release for other in saes() if other.model == entry.model})
    more = f" and {len(same_model) - 8} more" if len(same_model) > 8 else ""
    instead = f" Residual releases for {entry.model}: {', '.join(same_model[:8])}{more}." if same_model else ""
    return (
        f"SAE {entry.name} was trained on {reason}, not on the residual stream of {entry.model or 'a model'}, so its "
        f"features' directions say nothing about token embeddings.{instead}"
    )
