"""Which SAEs there are, what each one was trained on, and which of them the tool can serve.

Three sources: the demo's SAEs in this package, folders that the operator names, and the registry that sae-lens
ships (read as a file: importing sae-lens takes seconds). Nothing is downloaded here.
"""

import difflib
import glob
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, lru_cache
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
# Where the registry names another model than the repository and sae-lens' own loader do.
_CORRECTED_MODELS = {"gemma-scope-9b-it-res": "gemma-2-9b-it"}

# The models on the hub, and whether one must accept a licence there before they can be downloaded.
_NEEDS_LICENCE = {
    **dict.fromkeys(
        (
            "google/gemma-2b",
            "google/gemma-2b-it",
            "google/gemma-2-2b",
            "google/gemma-2-9b",
            "google/gemma-2-9b-it",
            "google/gemma-2-27b",
            "google/gemma-3-270m",
            "google/gemma-3-270m-it",
            "google/gemma-3-1b-pt",
            "google/gemma-3-1b-it",
            "google/gemma-3-4b-pt",
            "google/gemma-3-4b-it",
            "google/gemma-3-12b-pt",
            "google/gemma-3-12b-it",
            "google/gemma-3-27b-pt",
            "google/gemma-3-27b-it",
            "meta-llama/Llama-3.1-8B",
            "meta-llama/Llama-3.1-8B-Instruct",
            "meta-llama/Llama-3.3-70B-Instruct",
            "meta-llama/Meta-Llama-3-8B-Instruct",
            "mistralai/Mistral-7B-v0.1",
        ),
        True,
    ),
    **dict.fromkeys(
        (
            "EleutherAI/pythia-70m-deduped",
            "Qwen/Qwen2.5-7B-Instruct",
            "Qwen/Qwen3-1.7B-Base",
            "Qwen/Qwen3-30B-A3B-Base",
            "Qwen/Qwen3-8B-Base",
            "Qwen/Qwen3.5-27B",
            "Qwen/Qwen3.5-2B-Base",
            "Qwen/Qwen3.5-35B-A3B-Base",
            "Qwen/Qwen3.5-9B-Base",
            "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
            "openai-community/gpt2",
            "openai/gpt-oss-20b",
        ),
        False,
    ),
}

# What each of sae-lens' loaders of residual-stream SAEs downloads, {} being the path that the registry gives. The
# key is the registry's conversion_func; None is sae-lens' own format, whose sparsity file may be missing.
_LOADER_FILES = {
    None: ("{}/cfg.json", "{}/sae_weights.safetensors", "{}/sparsity.safetensors"),
    "deepseek_r1": ("{}",),
    "dictionary_learning_1": ("{}/config.json", "{}/ae.pt"),
    "gemma_2": ("{}/params.npz",),
    "gemma_3": ("{}/config.json", "{}/params.safetensors"),
    "goodfire": ("{}",),
    "llama_scope": ("{}/hyperparams.json", "{}/checkpoints/final.safetensors"),
    "llama_scope_r1_distill": ("{}/config.json", "{}/sae_weights.safetensors"),
    "qwen_scope": ("{}",),
    "temporal": ("{}/conf.yaml", "{}/latest_ckpt.safetensors"),
}
# The loaders that call torch.load.
_PICKLE_LOADERS = frozenset({"connor_rob_hook_z", "deepseek_r1", "dictionary_learning_1", "goodfire", "qwen_scope"})

# The exact number of features behind the rounded numbers in names, as in sae-lens' loader of Gemma Scope.
_ROUNDED_WIDTHS = {
    "4k": 4_096,
    "16k": 16_384,
    "32k": 32_768,
    "65k": 65_536,
    "128k": 131_072,
    "131k": 131_072,
    "262k": 262_144,
    "524k": 524_288,
    "1m": 1_048_576,
}
# Widths that no name tells: from the releases' configurations and sae-lens' loaders.
_RELEASE_WIDTHS = {
    "goodfire-llama-3.1-8b-instruct": 65_536,
    "goodfire-llama-3.3-70b-instruct": 65_536,
    "gpt2-small-res-jb": 24_576,
    "gpt2-small-res_sce-ajt": 46_080,
    "gpt2-small-res_scefr-ajt": 46_080,
    "gpt2-small-res_scl-ajt": 46_080,
    "gpt2-small-res_sle-ajt": 46_080,
    "gpt2-small-res_slefr-ajt": 46_080,
    "gpt2-small-res_sll-ajt": 46_080,
    "llama-3-8b-it-res-jh": 65_536,
    "llama-3.1-8b-instruct-andyrdt": 131_072,
    "mistral-7b-res-wg": 65_536,
    "pythia-70m-deduped-res-sm": 32_768,
    "qwen2.5-7b-instruct-andyrdt": 131_072,
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
    d_sae: int | None = None  # number of features; None: only the weights tell
    repo_id: str | None = None  # of the hub's repository that holds it
    path: str | None = None  # of its folder or file in that repository
    loader: str | None = None  # sae-lens' conversion_func; None: sae-lens' own format

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

    @property
    def gated(self) -> bool:
        """Whether the model's licence must be accepted on the hub before the model can be downloaded."""
        return _NEEDS_LICENCE.get(self.model, False)

    @property
    def licence_page(self) -> str | None:
        """Where the model's licence is accepted; None where there is no need."""
        return f"https://huggingface.co/{self.model}" if self.gated else None

    @property
    def pickled(self) -> bool:
        """Whether its weights come as a Python pickle, a kind of file that can run code when it is read."""
        return self.loader in _PICKLE_LOADERS

    @property
    def hub_files(self) -> tuple[str, ...]:
        """Patterns (huggingface_hub's ``allow_patterns``) of exactly the files in ``repo_id`` that sae-lens asks for.

        Empty for what is not served from the hub.
        """
        if self.path is None or not self.served:
            return ()
        return tuple(file.format(glob.escape(self.path)) for file in _LOADER_FILES[self.loader])

    @property
    def default_weights(self) -> str:
        """The weights for vectors of its features where a recipe names none.

        The demo's layers write in other directions than the embeddings lie in, so their own weights point nowhere.
        """
        return "vocabulary" if self.release == "demo" and self.kind != "embed" else "encoder"

    def facts(self) -> dict:
        """What a list of SAEs says about it, as plain JSON values."""
        return {
            "sae": self.name,
            "model": self.model,
            "hook": self.hook,
            "layer": self.layer,
            "d_sae": self.d_sae,
            "gated": self.gated,
            "neuronpedia_id": self.neuronpedia_id,
        }


def saes(search: str = "", patterns: tuple[str, ...] = ()) -> list[SaeEntry]:
    """The SAEs that can be served: the demo's, the operator's, the registry's. Nothing is fetched.

    >>> [sae.name for sae in mt.saes("gemma-2b-res-jb blocks.6")]
    ['gemma-2b-res-jb/blocks.6.hook_resid_post']

    Args:
        search: words that must all occur in the SAE's name, its model's or its hook's, in any case.
        patterns: the operator's limit, see ``allowed``.
    """
    words = search.lower().split()
    entries = (*demo_saes(), *operator_saes(), *(entry for entry in registry_saes().values() if entry.served))
    return [entry for entry in entries if allowed(entry, patterns) and _mentions(entry, words)]


def _mentions(entry: SaeEntry, words: list[str]) -> bool:
    text = f"{entry.name} {entry.model} {entry.hook}".lower()
    return all(word in text for word in words)


def models(patterns: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The models that have SAEs to serve: the demo's, then the others by name.

    Args:
        patterns: the operator's limit, see ``allowed``.
    """
    others = {entry.model for entry in saes(patterns=patterns)} - {"", DEMO_MODEL}
    return (DEMO_MODEL, *sorted(others, key=str.lower))


def allowed(entry: SaeEntry, patterns: tuple[str, ...]) -> bool:
    """Whether an operator who serves only ``patterns`` serves this SAE. Those on this machine always are.

    Args:
        patterns: each a release, a name, a pattern of names (``gemma-scope-2b-*/layer_1[0-9]/*``), or ``model:`` and
            the same of the model's hub id (``model:google/gemma-2b``). None at all allows everything.
    """
    return not patterns or entry.folder is not None or any(_matches(entry, pattern) for pattern in patterns)


def _matches(entry: SaeEntry, pattern: str) -> bool:
    if pattern.startswith("model:"):
        return fnmatchcase(entry.model, pattern.removeprefix("model:"))
    return pattern in (entry.release, entry.name) or fnmatchcase(entry.name, pattern)


def find_sae(name: str, *, allow_folder: bool = False, patterns: tuple[str, ...] = ()) -> SaeEntry:
    """The SAE of that name.

    >>> sae = mt.find_sae("gemma-2b-res-jb/blocks.6.hook_resid_post")
    >>> sae.model, sae.layer, sae.gated
    ('google/gemma-2b', 6, True)

    Args:
        name: ``RELEASE/SAE_ID``.
        allow_folder: whether ``name`` may be a folder on this machine (never for what comes from a web page).
        patterns: the operator's limit, see ``allowed``.

    Raises:
        UserError: there is none of that name (near matches are listed), it is not on the residual stream, or it is
            not among what the operator serves.
    """
    near_by = {entry.name: entry for entry in (*demo_saes(), *operator_saes())}
    entry = near_by.get(name)
    if entry is None and allow_folder and is_folder(name):
        entry = folder_sae(Path(name))
    if entry is None:
        entry = registry_saes().get(name)
    if entry is None:
        raise UserError(_unknown(name, allow_folder, patterns))
    if not entry.served:
        raise UserError(_not_served(entry, patterns))
    if not allowed(entry, patterns):
        raise UserError(_not_allowed(entry, patterns))
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
    entries = tuple(_operator_sae(folder.resolve()) for folder in folders)
    if len({entry.name for entry in entries}) < len(entries):
        raise UserError(
            f"Two folders in {LOCAL_SAES_VARIABLE} have the same last name, by which a visitor would choose them. "
            "Rename one."
        )
    return entries


def _operator_sae(folder: Path) -> SaeEntry:
    try:
        file = (folder / "cfg.json").stat()
    except OSError:
        return folder_sae(folder)  # says what is missing
    return _operator_sae_as_of(folder, file.st_mtime_ns, file.st_size)


@lru_cache(maxsize=1024)
def _operator_sae_as_of(folder: Path, changed: int, size: int) -> SaeEntry:
    """The folder's SAE, read again only where its ``cfg.json`` has changed: every list of SAEs asks for it."""
    return folder_sae(folder)


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
    neuronpedia_id = metadata.get("neuronpedia_id") or cfg.get("neuronpedia_id")
    width = cfg.get("d_sae")
    return SaeEntry(
        release=release,
        sae_id=folder.resolve().name,
        model=model or _HUB_IDS.get(trained_on, trained_on),
        kind=kind,
        layer=layer,
        neuronpedia_id=neuronpedia_id if isinstance(neuronpedia_id, str) else None,
        folder=folder,
        d_sae=width if type(width) is int else None,
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
    model = _CORRECTED_MODELS.get(release, listed["model"])
    loader, repo_id = listed.get("conversion_func"), listed["repo_id"]
    for sae in listed["saes"]:
        sae_id, path, neuronpedia_id = str(sae["id"]), str(sae["path"]), sae.get("neuronpedia")
        kind, layer = _parse_registry_id(loader, repo_id, sae_id, path)
        yield SaeEntry(
            release=release,
            sae_id=sae_id,
            model=_HUB_IDS.get(model, model),
            kind=kind,
            layer=layer,
            neuronpedia_id=neuronpedia_id,
            d_sae=_width(release, f"{repo_id}/{path}", neuronpedia_id) if kind in SERVED_KINDS else None,
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
        return _ROUNDED_WIDTHS.get(match[1])
    if match := re.search(r"width-2pow(\d+)_", place):
        return 2 ** int(match[1])
    if match := re.search(r"-W(\d+)K-L0_", place):  # Qwen Scope
        return int(match[1]) * 1024
    if match := re.search(r"hook_resid_(?:pre|post)_(\d+)", place):
        return int(match[1])
    return _RELEASE_WIDTHS.get(release)


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


def _unknown(name: str, allow_folder: bool, patterns: tuple[str, ...]) -> str:
    release, _, sae_id = name.partition("/")
    everything = [entry.name for entry in saes(patterns=patterns)]
    same_release = [other for other in everything if other.startswith(release + "/")] if release else []
    if same_release:
        ids = {other: other.partition("/")[2] for other in same_release}
        near = difflib.get_close_matches(sae_id, ids.values(), n=5, cutoff=0) or list(ids.values())[:5]
        hint = f"Release {release} has {', '.join(near)}" + (" and others" if len(ids) > len(near) else "")
    else:
        releases = sorted({other.partition("/")[0] for other in everything})
        near = difflib.get_close_matches(release, releases, n=5, cutoff=0.5)
        near = near or [some for some in ("demo", "gemma-2b-res-jb") if some in releases]
        hint = f"Near releases: {', '.join(near)}"
    folder = ", or a folder in sae-lens format" if allow_folder else ""
    return f"There is no SAE {shown(name)}. Name one as RELEASE/SAE_ID{folder}. {hint}; `saes` lists them all."


def _not_served(entry: SaeEntry, patterns: tuple[str, ...]) -> str:
    reason = _KIND_IN_WORDS.get(entry.kind, entry.kind)
    same_model = sorted({other.release for other in saes(patterns=patterns) if other.model == entry.model})
    instead = f" Residual releases for {entry.model}: {_some(same_model)}." if same_model else ""
    return (
        f"SAE {entry.name} was trained on {reason}, not on the residual stream of {entry.model or 'a model'}, so its "
        f"features' directions say nothing about token embeddings.{instead}"
    )


def _not_allowed(entry: SaeEntry, patterns: tuple[str, ...]) -> str:
    return (
        f"SAE {entry.name} is not served here: besides the demo, this server serves only {_some(patterns)}. A copy of "
        "this tool on your own machine serves them all."
    )


def _some(names: Iterable[str]) -> str:
    names = tuple(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
