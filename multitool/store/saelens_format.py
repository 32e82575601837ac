"""sae-lens' own format: what its many versions wrote, and the checkpoints of its trainer."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from multitool.errors import UserError, is_number, shown
from multitool.store.sae_files import Weights, read_json, safetensors_file
from multitool.store.sae_format import SINCE_6, Config, Matrices, Parts, SaeFormat, fitting, not_read

if TYPE_CHECKING:
    from torch import Tensor


def _lens_weights(folder: Path) -> Weights:
    return safetensors_file(folder / "sae_weights.safetensors")


def _is_tied(config: Config) -> bool:
    architecture = config.get("architecture")
    return architecture == "matching_pursuit" or bool(config.get("tied_weights", "tied", kind=bool))


def _lens_directions(folder: Path) -> Matrices:
    config, weights = SAE_LENS.config(folder), _lens_weights(folder)
    if config.get("normalize_activations") == "covariance_whitening":
        raise UserError(
            f"The SAE in {folder} was trained on whitened activations (normalize_activations in cfg.json is "
            "covariance_whitening), so its features' directions are none of the model's. sae-lens works the whitening "
            "into the weights at the end of the training: use what it saved then."
        )
    if "W_enc" not in weights and _is_tied(config):
        weights.matrix("W_dec")
        W_dec = weights.read("W_dec")
        return W_dec.T, W_dec
    W_enc, W_dec = fitting(weights, "W_enc", "W_dec")
    factor = _scaling_factor(config, weights)
    return W_enc, W_dec if factor is None else W_dec * factor[:, None].to(W_dec.dtype)


def _scaling_factor(config: Config, weights: Weights) -> "Tensor | None":
    """What each feature was scaled by in sae-lens' finetuning, where that counts: (d_sae,)."""
    for name in ("finetuning_scaling_factor", "scaling_factor"):
        if name in weights and config.get("finetuning_scaling_factor", kind=bool):
            shape, d_sae = weights.headers[name].shape, weights.headers["W_dec"].shape[0]
            if shape != (d_sae,):
                raise UserError(f"{weights.path}: {name} is {shape}; it must be a number for each of {d_sae} features.")
            return weights.read(name).float()
    return None


def _input_factor(folder: Path, config: Config) -> float | None:
    """What sae-lens' trainer multiplies inputs by, where it is not in the weights yet, as in its checkpoints."""
    path = folder / "activation_scaler.json"
    if config.get("normalize_activations") != "expected_average_only_in" or not path.is_file():
        return None
    factor = read_json(path).get("scaling_factor")
    return float(factor) if is_number(factor) and factor > 0 else None


def lens_parts(folder: Path, corrections: Mapping) -> Parts:
    """Configuration and weights of an SAE in sae-lens' own format, whatever its age, for sae-lens' classes.

    Args:
        corrections: what sae-lens' registry says in place of the configuration.

    Raises:
        UserError: they cannot be read, or how activations are computed is not told.
    """
    from sae_lens.loading.pretrained_sae_loaders import read_sae_components_from_disk

    config, weights = SAE_LENS.config(folder), _lens_weights(folder)
    _lens_directions(folder)  # tells best what is missing or does not fit
    cfg = _repaired(folder, config, weights) | dict(corrections) | {"device": "cpu", "dtype": "float32"}
    factor = _scaling_factor(config, weights)
    if factor is None:
        stray = [name for name in ("finetuning_scaling_factor", "scaling_factor") if name in weights
                 and not bool((weights.read(name) == 1).all())]
        if stray:
            told = cfg.get("finetuning_scaling_factor")
            raise not_read(folder, f"{weights.path.name} has a {stray[0]} other than 1, and " + (
                "cfg.json says that it does not count (finetuning_scaling_factor)" if told is False else
                "cfg.json does not say by finetuning_scaling_factor whether it counts (true or false)"))
    cfg.setdefault("finetuning_scaling_factor", False)
    cfg, state = read_sae_components_from_disk(cfg, weights.path, "cpu")
    state.pop("finetuning_scaling_factor", None)
    if factor is not None:
        state["W_dec"] = state["W_dec"] * factor[:, None]
    if "W_enc" not in state and cfg.get("architecture") != "matching_pursuit" and _is_tied(config):
        state["W_enc"] = state["W_dec"].T.contiguous()
    return _for_inference(cfg, state, _input_factor(folder, config))


def _repaired(folder: Path, config: Config, weights: Weights) -> dict:
    """The configuration with what sae-lens would misread set right."""
    (_, given), = config.files
    cfg = dict(given)
    d_sae, d_in = weights.matrix("W_dec")
    cfg |= {name: size for name, size in (("d_in", d_in), ("d_sae", d_sae)) if cfg.get(name) is None}
    named = cfg.get("activation_fn_str") or cfg.get("activation_fn")
    kwargs = cfg.get("activation_fn_kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    cfg["activation_fn_kwargs"] = kwargs
    architecture = cfg.get("architecture")
    k = kwargs.get("k") or cfg.get("k")
    if architecture == "topk" or (named == "topk" and architecture in (None, "standard")):
        if type(k) is not int or k < 1:
            raise not_read(folder, f"it is a TopK SAE, and {folder / 'cfg.json'} has no k (a whole number from 1 up)")
        cfg |= {"architecture": "topk", "k": k, "activation_fn_kwargs": {"k": k}}
    elif architecture in (None, "standard") and named not in (None, "relu"):
        raise not_read(folder, f"{folder / 'cfg.json'} names an activation function, {shown(named)}, that is not known")
    return cfg


def _for_inference(cfg: dict, state: dict[str, "Tensor"], factor: float | None) -> Parts:
    """A checkpoint of sae-lens' trainer in the form in which sae-lens itself would save it to be used.

    Args:
        factor: of its inputs, to be worked into the weights.
    """
    from sae_lens import SAE, TrainingSAE
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    def made(kind):
        sae = kind.load_from_disk("", converter=lambda path, device, cfg_overrides: (cfg, state))
        if factor is not None:
            sae.fold_activation_norm_scaling_factor(factor)
        return sae

    architecture = cfg.get("architecture")
    if not isinstance(architecture, str) or architecture in SAE_CLASS_REGISTRY or (
            architecture not in SAE_TRAINING_CLASS_REGISTRY):
        if factor is None:
            return cfg, state
        sae = made(SAE)
        cfg = sae.cfg.to_dict()
        return cfg | {"metadata": SINCE_6 | cfg["metadata"]}, sae.state_dict()
    metadata = cfg.get("metadata")
    cfg |= {"metadata": SINCE_6 | (metadata if isinstance(metadata, dict) else {})}
    return inference_parts(made(TrainingSAE))


def inference_parts(trained) -> Parts:
    """An SAE of sae-lens' trainer as sae-lens itself would save it to be used: configuration and weights."""
    saved = {name: tensor.clone() for name, tensor in trained.state_dict().items()}  # it is changed in place
    trained.process_state_dict_for_saving_inference(saved)
    return trained.cfg.get_inference_sae_cfg_dict(), saved


SAE_LENS = SaeFormat(
    "sae-lens", "cfg.json and sae_weights.safetensors", "sae_weights.safetensors", _lens_directions,
    lambda folder, kind: lens_parts(folder, {}), configs=("cfg.json",), needs_cfg=True,
)
