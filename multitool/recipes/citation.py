"""What to cite, and what the method builds upon: each once, for the page, BibTeX and ``CITATION.cff``."""

from dataclasses import dataclass

from multitool._version import __version__

NAME = "SAE feature multitool"
LICENCE = "GPL-3.0"
LICENCE_PAGE = "https://www.gnu.org/licenses/gpl-3.0.html"
YEAR = 2026  # of this version


@dataclass(frozen=True)
class Reference:
    """A work, and what of it is used here."""

    authors: str
    year: int
    title: str
    url: str
    of: str = ""


METHOD = Reference(
    "Matthew Watkins", 2024, "Exploring SAE features in LLMs with definition trees and token lists",
    "https://www.lesswrong.com/posts/w35H4ski8cHMpnWgX/exploring-sae-features-in-llms-with-definition-trees-and",
)
METHOD_NOTEBOOK = Reference(
    "Matthew Watkins", 2024, "Gemma-2B SAE Feature Interpretability Multitool",
    "https://github.com/mwatkins1970/SAE_Feature_Interpretability_Tool",
)
BUILT_UPON = (
    Reference(
        "Chen, Vondrick and Mao", 2024, "SelfIE: Self-Interpretation of Large Language Model Embeddings",
        "https://arxiv.org/abs/2403.10949", "the model puts a vector of its own into words; injection after a layer",
    ),
    Reference(
        "Ghandeharioun et al.", 2024,
        "Patchscopes: A Unifying Framework for Inspecting Hidden Representations of Language Models",
        "https://arxiv.org/abs/2401.06102", "the same idea in general; injection after a layer",
    ),
    Reference(
        "Kharlapenko et al.", 2024, "Self-explaining SAE features",
        "https://www.lesswrong.com/users/dmitrii-kharlapenko", "SAE features explained by their decoder's direction",
    ),
    Reference(
        "Pepper et al.", 2026, "Learning Self-Interpretation from Interpretability Artifacts: Training Lightweight "
        "Adapters on Vector-Label Pairs",
        "https://arxiv.org/abs/2602.10352", "a definition is tested by whether it fires its feature",
    ),
    Reference(
        "Gur-Arieh et al.", 2025, "Enhancing Automated Interpretability with Output-Centric Feature Descriptions",
        "https://arxiv.org/abs/2501.08319", "what a feature writes (TokenChange)",
    ),
    Reference(
        "nostalgebraist", 2020, "interpreting GPT: the logit lens",
        "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens", "the logit lens",
    ),
    Reference(
        "Gurnee et al.", 2026, "Transformer Circuits Thread",
        "https://transformer-circuits.pub/2026/workspace/index.html", "the Jacobian lens",
    ),
    Reference(
        "Simonyan, Vedaldi and Zisserman", 2013,
        "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps",
        "https://arxiv.org/abs/1312.6034", "saliency by gradients, the idea of pullback weights",
    ),
    Reference(
        "Bloom et al.", 2024, "SAELens", "https://github.com/decoderesearch/SAELens",
        "its registry and formats, and Joseph Bloom's SAEs of Gemma-2B, which the method was made for",
    ),
)


def method_bibtex() -> str:
    """The post that published the method, as BibTeX."""
    return _entry("watkins2024definitiontrees", {
        "title": "Exploring {SAE} features in {LLMs} with definition trees and token lists",
        "author": "Watkins, Matthew", "year": str(METHOD.year), "howpublished": "LessWrong", "url": METHOD.url,
    })


def tool_bibtex(url: str | None = None) -> str:
    """This version of the tool as BibTeX.

    Args:
        url: where it is to be had, if that is known.
    """
    fields = {"title": f"{{{NAME}}}", "author": f"{{{NAME} contributors}}", "year": str(YEAR),
              "note": f"Version {__version__}"}
    return _entry("saefeaturemultitool", fields | ({"url": url} if url else {}))


def _entry(key: str, fields: dict[str, str]) -> str:
    told = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{told}\n}}\n"
