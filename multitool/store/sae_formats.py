"""The formats that people keep SAEs in, and which one a folder is in.

A format (``sae_format.SaeFormat``) tells what its files say without the weights, the directions, and what sae-lens'
classes need to compute activations.
"""

from pathlib import Path

from multitool.errors import UserError, shown, some
from multitool.store.other_formats import DICTIONARY, PLAIN, SCOPE, SCOPE_2, SPARSIFY, matrix_files, plain_pair
from multitool.store.problems import Cases, said
from multitool.store.sae_files import folders_below
from multitool.store.sae_format import Matrices, SaeFormat
from multitool.store.saelens_format import SAE_LENS

_LOOKING: Cases = ((OSError, "{folder} cannot be looked into ({reason})."),)

FORMATS = (SAE_LENS, SPARSIFY, DICTIONARY, SCOPE, SCOPE_2, PLAIN)


def recognised(folder: Path) -> SaeFormat:
    """The format that an SAE's folder is in.

    Raises:
        UserError: it is no folder, is in none that is read, or holds SAEs in folders of their own.
    """
    with said(_LOOKING, folder=folder):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder. {_formats_told()}")
        for one in FORMATS[:-1]:
            if (folder / one.weights).exists():
                return one
        if len(matrix_files(folder)) == 1 and not (folder / "tokenizer_config.json").exists():
            plain_pair(folder)
            return PLAIN
        if (folder / "cfg.json").exists():
            return SAE_LENS  # which says what is missing
        raise UserError(_unknown(folder))


def directions(folder: Path) -> Matrices:
    """The directions of an SAE's features, as stored: W_enc (d_model, d_sae) and W_dec (d_sae, d_model).

    Raises:
        UserError: they cannot be read.
    """
    return recognised(folder).directions(folder)


def _unknown(folder: Path) -> str:
    saes = [place for place, files in folders_below(folder) if any(one.weights in files for one in FORMATS[:-1])]
    if saes:
        return f"{folder} is not an SAE's folder, but holds such folders: {some(map(str, saes), 6)}. Name one of them."
    names = sorted(path.name for path in folder.iterdir())
    many = len([name for name in names if name.endswith(".safetensors")]) > 1
    several = " Of several *.safetensors files it cannot be told which one is meant." if many else ""
    if "config.json" in names and "tokenizer_config.json" in names:
        return f"{folder} holds a language model with its tokenizer, and no SAE. Name a model with --model."
    return (
        f"{folder} holds no SAE in a format that is read: no {folder / 'cfg.json'}, for instance. It holds "
        f"{some(map(shown, names), 8) or 'nothing'}.{several} {_formats_told()}"
    )


def _formats_told() -> str:
    return "An SAE's folder is one of " + "; ".join(f"{one.name} ({one.made_of})" for one in FORMATS) + "."
