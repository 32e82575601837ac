"""Loading models and tokenizers: of a package index, from a folder, from the hub.

No file that can run code is read: weights come from safetensors, and a model brings no code of its own.
"""

import re
from contextlib import contextmanager
from os.path import commonprefix
from pathlib import Path

import torch
from torch import Tensor

from multitool.errors import UserError, shown, some
from multitool.model.residual_stream import final_norm
from multitool.model.subject import Subject
from multitool.store.demo_models import DEMO_MODELS, demo_model_folder
from multitool.store.entries import unreadable_model
from multitool.store.folders import is_folder
from multitool.store.hub import UNLIMITED, DownloadOptions, fetch_model
from multitool.store.model_weights import model_weights, refuse_adapter, refuse_pointers
from multitool.store.problems import loading_model, loading_quantised

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def load_subject(name: str, download: DownloadOptions = UNLIMITED) -> Subject:
    """The embeddings and tokens of a model: one of ``DEMO_MODELS``, a folder in Hugging Face format, or a hub id.

    Args:
        download: how it is fetched, if it is not here.

    Raises:
        UserError: they cannot be had.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    folder = _model_folder(name, download)
    whose = _whose(name, folder)
    refuse_pointers(folder)
    refuse_adapter(folder, whose)
    options = {"local_files_only": True, "trust_remote_code": False}
    with _quiet_transformers(), loading_model(name, folder):
        config = AutoConfig.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        listed = (folder / "generation_config.json").is_file()
        generation_config = GenerationConfig.from_pretrained(folder) if listed else None
        _check_numbers(config, whose)
        E = embedding_matrix(folder, config, whose)
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer of {name} has no fast version (tokenizer.json), which the tool needs.")
    return Subject(E, tokenizer, config, name, folder, generation_config)


def _model_folder(name: str, download: DownloadOptions) -> Path:
    if name in DEMO_MODELS:
        return demo_model_folder(name)
    if is_folder(name):
        return Path(name)
    if reason := unreadable_model(name):
        raise UserError(reason)
    if not _HUB_ID.fullmatch(name):
        raise UserError(
            f"There is no model {shown(name)}: it is neither a folder on this machine nor a hub id (OWNER/NAME, e.g. "
            "google/gemma-2b)."
        )
    return fetch_model(name, download)


_MOST_LAYERS = 10_000


def _whose(name: str, folder: Path) -> str:
    """A model as a sentence about it begins."""
    return f"The model in {folder}" if Path(name) == folder else f"The model {name}"


def _check_numbers(config, whose: str) -> None:
    """Raises UserError if a configuration asks for what no model is, and what would take for ever to find out."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and not 1 <= layers <= _MOST_LAYERS:
        raise UserError(f"{whose} is no model: num_hidden_layers is {shown(layers)} in its config.json. Correct it.")
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(longest, int) and longest < 1:
        raise UserError(
            f"{whose} has room for no token: max_position_embeddings is {longest} in its config.json. Correct it."
        )


def embedding_matrix(folder: Path, config, whose: str) -> Tensor:
    """The raw input embeddings (V, d_model) from a model's files, in the precision in which they are stored.

    Reads nothing else of the weights. The tensor's name is that of the model's own module, as far as checkpoints
    agree with it: they may lack or add a prefix.

    Args:
        whose: the model, as the beginning of a sentence.

    Raises:
        UserError: they are not there, not told apart, or no plain numbers.
    """
    model = _without_weights(config)
    return _stored(model, model.get_input_embeddings().weight, "input embeddings", folder, config, whose)


def _stored(model, wanted: Tensor, what: str, folder: Path, config, whose: str) -> Tensor:
    """A parameter of a model without weights, as its files have it. Arguments and errors as in ``embedding_matrix``."""
    name = next(name for name, parameter in model.named_parameters() if parameter is wanted)
    weights = model_weights(folder, whose)
    names = [parts.split(".")[::-1] for parts in (name, *_OTHER_NAMES.get(name, ()))]
    # How many parts the dotted names share at their ends.
    shared = {
        key: max(len(commonprefix([key.split(".")[::-1], parts])) for parts in names) for key in weights.files
    }
    best = max(shared.values(), default=0)
    found = [key for key in weights.files if shared[key] == best]
    quantised = f" It is quantised ({_method(config)})." if _method(config) else ""
    if best < 2 or len(found) != 1:
        raise UserError(f"{whose} has no {what} by the name of {name} among its weights.{quantised}")
    stored = weights.tensor(found[0])
    if stored.dtype not in _PLAIN:
        raise UserError(
            f"{whose} has its {what} ({found[0]}) as {str(stored.dtype).removeprefix('torch.')}, which are no "
            f"plain numbers without their scale.{quantised} Use the model that it was made from."
        )
    if stored.shape != wanted.shape:
        raise UserError(
            f"{whose} does not fit its config.json: {found[0]} is {tuple(stored.shape)}, and config.json asks for "
            f"{tuple(wanted.shape)} (vocab_size, hidden_size). Bring the two from the same model."
        )
    return stored


_OTHER_NAMES = {"lm_head.weight": ("embed_out.weight",)}  # what checkpoints of GPT-NeoX call it


def load_reader(name: str, folder: Path, E: Tensor):
    """A model with its final norm and its unembedding alone, on the CPU: what the logit lens takes, and no more.

    Args:
        E: its input embeddings, which are its unembedding where the two are one.

    Raises:
        UserError: they are not there, not told apart, or no plain numbers.
    """
    from transformers import AutoConfig

    whose = _whose(name, folder)
    with _quiet_transformers(), loading_model(name, folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = _without_weights(config)
        norm, unembedding = final_norm(model), model.get_output_embeddings()
        tied = unembedding is not None and unembedding.weight is model.get_input_embeddings().weight
        for module, what in ((norm, "final norm"), (unembedding, "unembedding")):
            if module is None:
                continue
            for part, wanted in list(module.named_parameters(recurse=False)):
                stored = E if tied and module is unembedding else _stored(model, wanted, what, folder, config, whose)
                module.register_parameter(part, torch.nn.Parameter(stored.to(E.dtype), requires_grad=False))
        return model.eval()


_SPREAD_OUT = ("fp8", "mxfp8", "mxfp4")  # methods whose weights transformers makes plain ones of where it must
_PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _without_weights(config):
    """The model that a configuration asks for, with no memory for its weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def model_size(name: str, folder: Path) -> tuple[str, int]:
    """transformers' name for the architecture of a model's text model, and how many numbers its weights are.

    By its configuration alone. Raises UserError if transformers cannot make such a model.
    """
    from transformers import AutoConfig

    with _quiet_transformers(), loading_model(name, folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return config.get_text_config().model_type, sum(w.numel() for w in _without_weights(config).parameters())


def load_model(name: str, folder: Path, dtype: str, device: str):
    """The running model from a folder: a transformers causal LM that is only ever read.

    Raises:
        UserError: it cannot be loaded, or its weights are not those that its configuration asks for.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    whose = _whose(name, folder)
    refuse_adapter(folder, whose)
    with _quiet_transformers(), loading_model(name, folder, f"{device}, {dtype}"):
        weights = model_weights(folder, whose)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # Sizes that do not fit are told below, by name.
        options = {"dtype": getattr(torch, dtype), "output_loading_info": True, "ignore_mismatched_sizes": True}
        method = _method(config)
        if method and device != "cpu" and method not in _SPREAD_OUT:
            options["device_map"] = {"": device}  # no one but their loader can move such weights
        with loading_quantised(whose, method):
            if method and not AutoHfQuantizer.supports_quant_method(_quantisation(config)):
                raise ValueError("it knows no such method")  # and would take the numbers as they are
            if weights.found_by_transformers:
                model, report = AutoModelForCausalLM.from_pretrained(
                    folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, **options
                )
            else:
                kind = type(_without_weights(config))
                model, report = kind.from_pretrained(None, config=config, state_dict=weights.tensors(), **options)
        _check_loaded(model, report, whose)
        model.requires_grad_(False).eval()
        return model if method and method not in _SPREAD_OUT else model.to(device)


def _check_loaded(model, report: dict, whose: str) -> None:
    """Raises UserError if a model has other tensors than its configuration asks for. transformers makes some up."""
    told = "Bring weights and config.json from the same model."
    if missing := sorted(report["missing_keys"]):
        lacking = some(missing, 1)
        raise UserError(f"{whose} is not whole: its weights lack {lacking}, for which config.json asks. {told}")
    for name, there, wanted in sorted(map(tuple, report["mismatched_keys"])):
        raise UserError(
            f"{whose} does not fit its config.json: {name} is {tuple(there)}, and config.json asks for "
            f"{tuple(wanted)}. {told}"
        )
    names = {_NUMBER.sub("#", name) for name in model.state_dict()} if report["unexpected_keys"] else set()
    further = sorted(
        name for name in report["unexpected_keys"]
        if any(_NUMBER.sub("#", prefix + name) in names for prefix in ("", f"{model.base_model_prefix}."))
    )
    if further:
        raise UserError(
            f"{whose} has more layers than its config.json asks for: {some(further, 1)}. Correct num_hidden_layers "
            "there."
        )


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")


def _quantisation(config):
    """What a configuration says about how its weights are quantised; None where it says nothing."""
    found = (getattr(part, "quantization_config", None) for part in (config, config.get_text_config()))
    return next((one for one in found if one), None)


def _method(config) -> str | None:
    """How a model's weights are quantised, as its configuration names it; None where they are not."""
    told = _quantisation(config)
    if not isinstance(told, dict):
        return None if told is None else shown(told)[:50]
    if told.get("load_in_4bit") or told.get("load_in_8bit"):
        return "bitsandbytes"
    return str(told.get("quant_method", "by a method that config.json does not name"))[:50]


@contextmanager
def _quiet_transformers():
    """Silences transformers' warnings and progress bars during loading; our own messages report errors."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
