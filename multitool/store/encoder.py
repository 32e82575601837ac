"""Loading an SAE to read with it: how strongly its features fire on residuals of its model.

The arithmetic is sae-lens' own, class by class; nothing of it is written again here.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multitool.errors import UserError
from multitool.store.entries import SaeEntry
from multitool.store.hub import UNLIMITED, DownloadOptions
from multitool.store.problems import HOLDING, reading_by_sae_lens, said
from multitool.store.sae_format import SINCE_6, Parts, not_read
from multitool.store.sae_formats import recognised
from multitool.store.saelens_format import inference_parts, lens_parts
from multitool.store.saes import fetch_sae, read_fetched, sae_lens_sae

# The classes in which a feature's activation needs no other feature: a part of the SAE reads as the whole does.
_ALONE = ("standard", "gated", "jumprelu")
# The classes that read a text's positions together; here each one stands alone.
_OF_TEXTS = ("temporal",)
# A normalisation by a number that was found in training. An SAE that still asks for it has lost that number.
_BY_A_NUMBER = "expected_average_only_in"
_KWARGS = "model_from_pretrained_kwargs"  # how sae-lens calls what TransformerLens did to the model
CHUNK_BYTES = 1 << 28
_TENSORS = 6  # about so many of them, as large as the result or the input, are there at once


@dataclass(frozen=True)
class Encoder:
    """An SAE that reads, in float32 on the CPU. Safe to share between threads."""

    entry: SaeEntry
    centred: bool  # whether it reads residuals without their mean (see ``load_encoder``)
    _sae: Any = field(repr=False)  # sae-lens' own
    chunk_bytes: int = CHUNK_BYTES  # memory that the intermediate results of one chunk of residuals may take

    @property
    def d_model(self) -> int:
        return self._sae.cfg.d_in

    @property
    def d_sae(self) -> int:
        return self._sae.cfg.d_sae

    def encode(self, x: Tensor) -> Tensor:
        """All features' activations, (n, d_sae) in float32, on residuals (n, d_model) of the SAE's hook."""
        activations = torch.empty(len(x), self.d_sae)
        for place, part in self.encoded(x):
            activations[place] = part
        return activations

    def encoded(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """``encode`` some residuals at a time, so that memory stays bounded: each part with its place in ``x``."""
        return self._parts(_like(self._sae), x)

    def encode_feature(self, x: Tensor, feature: int | Sequence[int]) -> Tensor:
        """One feature's activations, (n,), or those of k features, (n, k): columns of ``encode``.

        Cheap where features do not compete; a TopK SAE has to compute them all. Never holds all of ``encode``.

        Raises:
            UserError: there is no such feature.
        """
        features = [feature] if isinstance(feature, int) else list(feature)
        for index in features:
            if not 0 <= index < self.d_sae:
                raise UserError(
                    f"feature is {index}; {self.entry.name} has {self.d_sae} features, numbered 0 to {self.d_sae - 1}."
                )
        activations = torch.empty(len(x), len(features))
        alone = self._sae.cfg.architecture() in _ALONE
        for place, part in self._parts(_like(self._sae, features if alone else None), x):
            activations[place] = part if alone else part[:, features]
        return activations[:, 0] if isinstance(feature, int) else activations

    def products(self, n: int) -> int:
        """How many products of numbers one feature's activations on ``n`` residuals take."""
        return n * self.d_model * (1 if self._sae.cfg.architecture() in _ALONE else self.d_sae)

    @torch.no_grad()
    def change_by_setting(self, x: Tensor, feature: int, activation: float) -> Tensor:
        """What setting a feature's activation changes in the SAE's reconstruction of x: (n, d_model) in float32.

        ``decode(z') - decode(z)`` with ``z = encode(x)`` and ``z'`` the same but for the feature. Without a
        normalisation of the inputs that is ``(activation - z_i) W_dec[i]``; with one, that in the units of x.
        """
        alone = self._sae.cfg.architecture() in _ALONE
        column = 0 if alone else feature
        changes = torch.empty(len(x), self.d_model)
        for place in self._places(len(x), 1 if alone else self.d_sae):
            # A fresh one each time: an SAE notes at encoding what decoding takes to undo a normalisation.
            sae = _like(self._sae, [feature] if alone else None)
            before = _encode(sae, x[place].to("cpu", torch.float32), self.centred)
            after = before.clone()
            after[:, column] = activation
            decoded = sae.decode(torch.stack([before, after]))
            changes[place] = decoded[1] - decoded[0]
        return changes

    @torch.no_grad()
    def _parts(self, sae, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """``sae``'s activations on ``x`` in chunks of bounded memory, each with its place."""
        for place in self._places(len(x), sae.cfg.d_sae):
            yield place, _encode(sae, x[place].to("cpu", torch.float32), self.centred)

    def _places(self, n: int, d_sae: int) -> Iterator[slice]:
        """Parts of ``n`` rows, so large that what they take stays bounded."""
        n_rows = max(1, self.chunk_bytes // (4 * _TENSORS * max(d_sae, self.d_model)))
        for first in range(0, n, n_rows):
            yield slice(first, first + n_rows)


def _encode(sae, x: Tensor, centred: bool) -> Tensor:
    if centred:
        x = x - x.mean(dim=1, keepdim=True)
    if sae.cfg.architecture() in _OF_TEXTS:
        return sae.encode(x[:, None])[:, 0]
    return sae.encode(x)


def _like(sae, features: Sequence[int] | None = None):
    """A fresh SAE of the same class with the same weights, or with those of some features.

    Fresh because some SAEs note on themselves what they normalise, where two threads would meet. The whole SAE's
    weights are shared and not copied.
    """
    weights = sae.state_dict()
    d_sae = sae.cfg.d_sae
    if features is not None:
        weights = {name: _rows_of(name, weight, features) for name, weight in weights.items()}
        d_sae = len(features)
    # Made without memory for weights, and without metadata, about which sae-lens would warn.
    twin = type(sae)(replace(sae.cfg, d_sae=d_sae, device="meta", metadata=type(sae.cfg.metadata)()))
    twin.load_state_dict(weights, assign=True)
    return twin.to(device="cpu").eval().requires_grad_(False)


def _rows_of(name: str, weight: Tensor, features: Sequence[int]) -> Tensor:
    match name:
        case "W_enc":
            return weight[:, features]
        case "b_dec":
            return weight
    return weight[features]  # W_dec, and one number for each feature


def load_encoder(entry: SaeEntry, download: DownloadOptions = UNLIMITED) -> Encoder:
    """An SAE to read with, fetched if need be.

    What sae-lens does around an SAE's own ``encode`` is done as sae-lens does it: a known factor on the inputs is
    folded into the weights, and the registry's corrections of an SAE's configuration hold. Where these say that the
    SAE was trained on TransformerLens' model with centred writing weights (only those of GPT-2 do), whose residuals
    have mean 0 and are otherwise the same, the mean is taken off every residual.

    Args:
        download: how it is fetched, if it is not here.

    Raises:
        UserError: it is missing, damaged, or nothing that sae-lens reads.
    """
    with said(HOLDING, sae=entry.folder or entry.name):
        if entry.folder:
            folder, kept = entry.folder, recognised(entry.folder)
            return _encoder(entry, folder, lambda: _of_parts(kept.parts(folder, entry.kind)))
        root = fetch_sae(entry, download)
        if entry.loader is None:
            read_fetched(entry, root)
            return _encoder(entry, root, partial(_from_fetched, entry, root / entry.path))
        return _encoder(entry, root, partial(sae_lens_sae, entry, root))


def _encoder(entry: SaeEntry, folder: Path, read: Callable) -> Encoder:
    with reading_by_sae_lens(entry, folder):
        return encoder_of(entry, read())


def encoder_of(entry: SaeEntry, sae) -> Encoder:
    """An SAE that is loaded already as one to read with; its weights are shared where they are float32 on the CPU.

    Args:
        sae: sae-lens' own object, which stays as it is.

    Raises:
        UserError: how it reads is not known, or its weights are no numbers.
    """
    from sae_lens import TrainingSAE

    warnings.filterwarnings("ignore", module=r"sae_lens\.")  # what they are about is done here
    if isinstance(sae, TrainingSAE):  # some of which read a batch's texts together
        cfg, state = inference_parts(sae)
        sae = _of_parts((cfg | {"metadata": SINCE_6 | sae.cfg.metadata.to_dict()}, state))
    kwargs = sae.cfg.metadata[_KWARGS] or _corrections(entry).get(_KWARGS)
    centred = bool(kwargs and kwargs.get("center_writing_weights"))
    sae = _like(sae).to(dtype=torch.float32)
    # What does not fit together shows now.
    tried = _encode(sae, torch.linspace(1, 2, sae.cfg.d_in)[None], centred)
    if sae.cfg.normalize_activations == _BY_A_NUMBER:
        raise not_read(entry.folder or entry.name, (
            f"it was trained on inputs times a factor (normalize_activations is {_BY_A_NUMBER}), and no file of it "
            "(activation_scaler.json) nor sae-lens' registry tells that; where the weights have it in them already, "
            "normalize_activations must be none"))
    if sae.cfg.architecture() not in _ALONE and not torch.isfinite(tried).all():
        raise UserError(
            f"The weights of SAE {entry.name} have NaN or infinity, and its features compete, so that none of its "
            "activations can be told. Get its files from where they came."
        )
    return Encoder(entry, centred, sae)


def _of_parts(parts: Parts):
    """sae-lens' own object, in float32 on the CPU, of a configuration and weights."""
    from sae_lens import SAE

    cfg, state = parts
    return SAE.load_from_disk(
        "", converter=lambda path, device, cfg_overrides: (cfg | {"device": "cpu", "dtype": "float32"}, state)
    )


def _from_fetched(entry: SaeEntry, folder: Path):
    """An SAE in sae-lens' own format as ``SAE.from_pretrained`` gives it, without asking the hub once more."""
    from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor

    sae = _of_parts(lens_parts(folder, _corrections(entry)))
    if sae.cfg.normalize_activations == _BY_A_NUMBER:
        factor = get_norm_scaling_factor(entry.release, entry.sae_id)
        if factor is not None:
            sae.fold_activation_norm_scaling_factor(factor)
    return sae


def _corrections(entry: SaeEntry) -> dict:
    """What sae-lens' registry says about an SAE in the place of its own configuration."""
    from sae_lens.loading.pretrained_saes_directory import get_config_overrides

    return get_config_overrides(entry.release, entry.sae_id) if entry.repo_id else {}
