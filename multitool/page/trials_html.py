"""Settings that were tried on a feature, on the page: a table whose rows are to be chosen."""

from collections.abc import Sequence
from html import escape

from multitool.jobs.suggest import Setting, figures_rounded
from multitool.text import visible

_FIGURES = {
    "chosen by": "The score of the half of definitions and tokens that chose",
    "score": "The mean of being found and of the list, of the other half, as all that follows",
    "hit rate": "The share of its definitions on which the feature fires",
    "AUROC": "How often it fires more strongly on one of its definitions than on another feature's",
    "rank": "Its place among all features, by how strongly they fire on these definitions",
    "list AP": "The average precision of its token list",
}


def trials_table(settings: Sequence[Setting]) -> str:
    """Settings as HTML, each in a row to be chosen; nothing where there are none."""
    if not settings:
        return ""
    columns = "".join(
        f'<th scope="col" class="figure" title="{escape(told, quote=True)}">{name}</th>'
        for name, told in _FIGURES.items()
    )
    rows = "".join(_row(number, setting) for number, setting in enumerate(settings))
    return (
        '<table class="found trials"><caption>The best first. Choose a setting, and the tree grows with it.</caption>'
        '<thead><tr><th scope="col">Setting</th><th scope="col">What it says first</th>'
        f"{columns}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(number: int, setting: Setting) -> str:
    name = escape(str(setting.trial.candidate))
    said = " · ".join(escape(visible(text)) for text in setting.definitions) or "–"
    figures = "".join(
        f'<td class="figure" data-name="{column}">{"–" if value is None else f"{value:.3g}"}</td>'
        for column, value in zip(_FIGURES, figures_rounded(setting.trial), strict=True)
    )
    return (
        f'<tr data-number="{number}"><th scope="row"><button type="button" data-number="{number}" tabindex="0" '
        f'aria-label="{number + 1}: {name}; grow the tree with it">{name}</button></th>'
        f'<td class="told">{said}</td>{figures}</tr>'
    )
