"""Loading models and tokenizers: from the demo, from a folder, from the hub.

No file that can run code is read: weights come from safetensors, and a model brings no code of its own.
"""

import json
import re
from contextlib import contextmanager
from os.path import commonprefix
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from multitool.errors import UserError, shown
from multitool.model.subject import Subject
from multitool.store.demo_model import DEMO_MODEL, demo_model_folder
from multitool.store.entries import unreadable_model
from multitool.store.folders import is_folder
from multitool.store.hub import UNLIMITED, DownloadOptions, fetch_model
from multitool.store.problems import loading_model

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def load_subject(name: str, download: DownloadOptions = UNLIMITED) -> Subject:
    """The embeddings and tokens of the model ``name``: the demo's, a folder in Hugging Face format, or a hub id.

    Args:
        download: how it is fetched, if it is not here.

    Raises:
        UserError: they cannot be had.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    folder = _model_folder(name, download)
    options = {"local_files_only": True, "trust_remote_code": False}
    with _quiet_transformers(), loading_model(name, folder):
        config = AutoConfig.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        listed = (folder / "generation_config.json").is_file()
        generation_config = GenerationConfig.from_pretrained(folder) if listed else None
        E = embedding_matrix(folder, config)
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer of {name} has no fast version (tokenizer.json), which the tool needs.")
    return Subject(E, tokenizer, config, name, folder, generation_config)


def _model_folder(name: str, download: DownloadOptions) -> Path:
    if name == DEMO_MODEL:
        return demo_model_folder()
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


def embedding_matrix(folder: Path, config) -> Tensor:
    """The raw input embeddings (V, d_model) from a model's safetensors, in the precision in which they are stored.

    Reads nothing else of the weights. The tensor's name is that of the model's own module, as far as checkpoints
    agree with it: they may lack or add a prefix.

    Raises:
        UserError: they are not there, or not told apart.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = model.get_input_embeddings().weight
    name = next(name for name, parameter in model.named_parameters() if parameter is wanted)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {key: folder / file for key, file in listed.items()}
    else:
        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            files = dict.fromkeys(weights.keys(), folder / "model.safetensors")
    # How many parts the two dotted names share at their ends.
    shared = {key: len(commonprefix([key.split(".")[::-1], name.split(".")[::-1]])) for key in files}
    best = max(shared.values(), default=0)
    found = [key for key in files if shared[key] == best]
    if best < 2 or len(found) != 1:
        raise UserError(f"The model in {folder} has no input embeddings by the name of {name} among its weights.")
    path = files[found[0]]
    if path.parent != folder:
        raise UserError(f"The model in {folder} is damaged: its index names the file {shown(str(path))} outside of it.")
    with safe_open(path, framework="pt") as weights:
        E = weights.get_tensor(found[0])
    if E.shape != wanted.shape or not E.is_floating_point():
        raise UserError(
            f"The model in {folder} is damaged: {found[0]} is {tuple(E.shape)} of {E.dtype}, and its config.json "
            f"asks for {tuple(wanted.shape)}."
        )
    return E


def load_model(name: str, folder: Path, dtype: str, device: str):
    """The running model from a folder: a transformers causal LM that is only ever read.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    with _quiet_transformers(), loading_model(name, folder, f"{device}, {dtype}"):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True,
            local_files_only=True, trust_remote_code=False,
        )
        if report["missing_keys"]:
            raise ValueError(f"its weights lack {sorted(report['missing_keys'])[0]}.")
        return model.requires_grad_(False).eval().to(device)


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
