"""``quality.json`` and the README beside the demo's SAEs, both from measured figures alone."""

import json
from pathlib import Path

SCHEMA = "sae-multitool/quality/1"
_ROWS = (
    ("measured on", lambda f: f["measured_on"]),
    ("architecture", lambda f: f["architecture"]),
    ("features", lambda f: f"{f['features']:,}"),
    ("training vectors, distinct", lambda f: f"{f['distinct_training_vectors']:,}"),
    ("training vectors, with repeats", lambda f: f"{f['training_samples']:,}"),
    ("unexplained variance", lambda f: f"{f['reconstruction']['unexplained_variance']:.3f}"),
    ("… of the majority", lambda f: f"{f['reconstruction']['unexplained_variance_of_majority']:.3f}"),
    ("… of all, outliers included", lambda f: f"{f['reconstruction']['unexplained_variance_of_all']:.3f}"),
    ("vectors beyond the majority", lambda f: f"{f['reconstruction']['beyond_majority_share']:.2%}"),
    ("outliers", lambda f: f"{f['reconstruction']['outlier_share']:.4%}"),
    ("features active per vector (L0)", lambda f: f"{f['reconstruction']['l0']:.1f}"),
    ("features never active", lambda f: f"{f['reconstruction']['never_active_share']:.2%}"),
    ("… on so many vectors", lambda f: f"{f['reconstruction']['vectors']:,}"),
    ("decoder norm, mean", lambda f: f"{f['decoder_norm']:.3f}"),
    ("cross-entropy, clean", lambda f: f"{f['language_model_loss']['clean']:.3f}"),
    ("cross-entropy, with the SAE", lambda f: f"{f['language_model_loss']['with_sae']:.3f}"),
    ("cross-entropy, zero-ablated", lambda f: f"{f['language_model_loss']['zero_ablated']:.3f}"),
    ("cross-entropy, mean-ablated", lambda f: f"{f['language_model_loss']['mean_ablated']:.3f}"),
    ("recovered, against zero", lambda f: f"{f['language_model_loss']['recovered_from_zero']:.1%}"),
    ("recovered, against mean", lambda f: f"{f['language_model_loss']['recovered_from_mean']:.1%}"),
    ("cross-entropy over so many tokens", lambda f: f"{f['language_model_loss']['tokens']:,}"),
)


def add_figures(folder: Path, hook_name: str, figures: dict) -> None:
    """Put one SAE's figures into ``quality.json`` and bring the README's table up to date."""
    path = folder / "quality.json"
    saes = json.loads(path.read_text(encoding="utf-8"))["saes"] if path.exists() else {}
    saes[hook_name] = _rounded(figures)
    content = {"schema": SCHEMA, "saes": saes}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    readme = folder / "README.md"
    if readme.exists():
        readme.write_text(_with_table(readme.read_text(encoding="utf-8"), _table(saes)), encoding="utf-8")


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _table(saes: dict) -> str:
    names = sorted(saes, key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])
    lines = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, show in _ROWS:
        lines.append(f"| {label} | " + " | ".join(show(saes[name]) for name in names) + " |")
    return "\n".join(lines)


def _with_table(text: str, table: str) -> str:
    """``text`` with the lines between its two table marks replaced."""
    before, rest = text.split("<!-- figures -->\n", 1)
    after = rest.split("<!-- end of figures -->", 1)[1]
    return f"{before}<!-- figures -->\n{table}\n<!-- end of figures -->{after}"
