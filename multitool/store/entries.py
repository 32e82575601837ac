"""What is known of an SAE before it is loaded."""

import glob
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import yaml

OWN_VECTOR = "vector"  # in the place of a release
# Features of these hooks point in directions of the residual stream (or of the embedding itself).
SERVED_KINDS = ("embed", "resid_pre", "resid_mid", "resid_post")


@cache
def registry_facts() -> dict:
    """What no file of an SAE or a model tells: ``registry_facts.yaml``, which explains itself."""
    path = Path(__file__).with_name("registry_facts.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def hub_id(model: str) -> str:
    """The id on the hub of a model as SAEs name it: by an id, or by one of TransformerLens' short names."""
    known = registry_facts()["hub_ids"]
    name = known.get(model) or _transformer_lens_names().get(model, model)
    return known.get(name, name)


@cache
def _transformer_lens_names() -> dict[str, str]:
    """Each of TransformerLens' short names, and the official one; as TransformerLens 3.9 has them.

    Kept as a file: importing TransformerLens takes seconds.
    """
    path = Path(__file__).with_name("transformer_lens_models.json")
    return {short: name for name, others in json.loads(path.read_text(encoding="utf-8")).items() for short in others}


def unreadable_model(model: str) -> str | None:
    """Why no transformers model goes by this hub id, where it is a name of TransformerLens' table that has none."""
    if model not in _transformer_lens_names().values():
        return None
    if model.startswith(("NeelNanda/", "ArthurConmy/", "Baidicoot/")):
        return (
            f"The model {model} is TransformerLens' own: its weights are kept in TransformerLens' format, and "
            "transformers, which runs the models here, has no such model. Its SAEs cannot be read with it."
        )
    if "/" not in model and model not in registry_facts()["hub_ids"]:
        return (
            f"{model} is TransformerLens' name for weights that are not on the hub. Name a folder that holds them in "
            "Hugging Face format with --model."
        )
    return None


@dataclass(frozen=True)
class ModelSize:
    """How large a model is, as far as it is known without loading it."""

    parameters: int  # all that are loaded
    d_model: int
    download: int  # bytes of its weights on the hub


def model_size(model: str) -> ModelSize | None:
    """How large a model is, by its hub id or a local model's name; None where that is not known."""
    known = registry_facts()["model_sizes"].get(model)
    if known is None:
        return None
    parameters = known["millions"] * 10**6
    return ModelSize(parameters, known["d_model"], int(known.get("download_gb", 2 * parameters / 1e9) * 1e9))


@dataclass(frozen=True)
class SaeEntry:
    """One SAE, as far as it is known without loading it."""

    release: str
    sae_id: str
    model: str  # hub id, a local model (demo_models), or a folder
    kind: str  # one of SERVED_KINDS, or what else it was trained on
    layer: int | None  # None for the embedding
    neuronpedia_id: str | None = None  # as in https://neuronpedia.org/{neuronpedia_id}/{feature}
    folder: Path | None = None  # where it lies on this machine; None: on the hub
    d_sae: int | None = None  # number of features; None: only the weights tell
    l0: float | None = None  # how many of them fire at a token, on average; None: not known
    repo_id: str = ""  # of the hub's repository that holds it
    path: str = ""  # of its folder or file in that repository
    loader: str | None = None  # sae-lens' conversion_func; None: sae-lens' own format
    hook_told: str = ""  # the hook as a folder's files name it, and
    told_by: str = ""  # the field and the file that do; or, where none does, where it was looked for

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

    @cached_property
    def told(self) -> str:
        """What a search looks through, in small letters."""
        place = "embedding" if self.layer is None else f"layer {self.layer}"
        width = f"width {self.d_sae} {self.d_sae // 1000}k" if self.d_sae else ""
        l0 = "" if self.l0 is None else f"l0 {self.l0:.0f}"
        return f"{self.name} {self.model} {self.hook} {place} {width} {l0}".lower()

    @property
    def canonical(self) -> bool:
        """Whether its authors chose it as the one to use among those that differ only in how sparse they are."""
        return self.sae_id.endswith("canonical")

    @property
    def of_vector(self) -> bool:
        """Whether it is a vector of one's own in the place of an SAE: one feature, and nothing tells when it fires."""
        return self.release == OWN_VECTOR

    @property
    def gated(self) -> bool:
        """Whether the model's licence must be accepted before the model can be downloaded: on the hub, or here."""
        return self.licence_page is not None

    @property
    def licence_page(self) -> str | None:
        """Where the model's licence is accepted, or of a local model stands; None where there is no need."""
        if self.model in registry_facts()["models"]["gated"]:
            return f"https://huggingface.co/{self.model}"
        return registry_facts()["terms"].get(self.model)

    @property
    def pickled(self) -> bool:
        """Whether its weights come as a Python pickle, a kind of file that can run code when it is read."""
        return self.loader in registry_facts()["pickle_loaders"]

    @property
    def hub_files(self) -> tuple[str, ...]:
        """Patterns (huggingface_hub's ``allow_patterns``) of exactly the files in ``repo_id`` that sae-lens asks for.

        Empty for what is not served from the hub.
        """
        if not self.path or not self.served:
            return ()
        files = registry_facts()["loader_files"][self.loader or "sae_lens"]
        return tuple(file.format(glob.escape(self.path)) for file in files)

    @property
    def default_weights(self) -> str:
        """The weights for vectors of its features where a recipe names none, but for lists.

        The local models' layers write in other directions than embeddings lie in, so their own weights point nowhere.
        Which suit them stands in ``registry_facts.yaml``; other SAEs take the published ones.
        """
        if self.of_vector and self.kind != "embed":
            return "pullback"
        of_layers = registry_facts()["tree_weights_of_layers"]
        return of_layers.get(self.model, "encoder") if self.release == "demo" and self.kind != "embed" else "encoder"

    @property
    def list_weights(self) -> str:
        """The same for token lists."""
        return "pullback" if self.release == "demo" else self.default_weights

    def facts(self) -> dict:
        """What a list of SAEs says about it, as plain JSON values."""
        size = model_size(self.model)
        return {
            "sae": self.name,
            "model": self.model,
            "hook": self.hook,
            "layer": self.layer,
            "d_sae": self.d_sae,
            "l0": self.l0,
            "canonical": self.canonical,
            "model_parameters": size and size.parameters,
            "gated": self.gated,
            "neuronpedia_id": self.neuronpedia_id,
        }


def parse_hook(hook: str) -> tuple[str, int | None]:
    """(kind, layer) of a place in a model, as TransformerLens or as transformers' modules name it.

    A path of modules that ends at a layer is that layer's output. What is no such name is ``("unknown", None)``; a
    place inside a layer has a kind that says so.

    >>> parse_hook("blocks.3.hook_resid_pre"), parse_hook("model.layers.3"), parse_hook("transformer.h.3.mlp")
    (('resid_pre', 3), ('resid_post', 3), ('mlp', 3))
    """
    if _EMBEDDING.fullmatch(hook):
        return "embed", None
    if match := _BLOCK.fullmatch(hook):
        kind = _PLACES.get(match[2]) or _inside(match[2].removeprefix("hook_"))
    elif match := _LAYER.fullmatch(hook):
        kind = {None: "resid_post", "output": "resid_post", "input": "resid_pre"}.get(match[2]) or _inside(match[2])
    else:
        return "unknown", None
    return kind, int(match[1])


# Four digits are enough for any model, and a bound on what a file can make of it.
_BLOCK = re.compile(r"blocks\.([0-9]{1,4})\.([A-Za-z_.0-9]{1,100})")
_PLACES = {
    "hook_resid_pre": "resid_pre",
    "hook_in": "resid_pre",  # of TransformerLens 3
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_out": "resid_post",  # of TransformerLens 3
    "hook_mlp_out": "mlp_out",
    "hook_attn_out": "attn_out",
    "attn.hook_z": "attn_z",
    "hook_z": "attn_z",
}
_TRUNK = r"(?:(?:model\.)?(?:language_model|decoder|model)\.(?:model\.)?|model\.|transformer\.|gpt_neox\.)?"
_LAYER = re.compile(_TRUNK + r"(?:layers|h)\.([0-9]{1,4})(?:\.([A-Za-z_.0-9]{1,100}))?")
_EMBEDDING = re.compile(rf"hook_embed|embed\.hook_out|{_TRUNK}(?:embed_tokens|wte|embed_in)")


def _inside(place: str) -> str:
    """The kind of a place inside a layer."""
    if re.match(r"mlp|moe|feed_?forward|ffn|block_sparse_moe", place):
        return "mlp"
    return "attention" if re.match(r"(self_|linear_)?attn|attention|q\b|k\b|v\b", place) else "inside"
