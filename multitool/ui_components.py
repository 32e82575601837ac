"""The page's controls for principal components, folded away, and what each of them is."""

from functools import partial
from html import escape

import gradio as gr

from multitool.component import SHOWN, Component
from multitool.text import percent, visible
from multitool.ui_common import PRIVATE, QUIETLY, quiet, shown_errors
from multitool.ui_service import Service

_TOKENS_TOLD = 6  # at each end of a component
_ABOUT = (
    "Directions in which the token embeddings differ most, mixed into the vector, which keeps the rest; a negative "
    "weight points to the other end. The distance from the centroid then differs from the scale."
)


def component_controls(service: Service, sae_box: gr.Dropdown) -> tuple[tuple[gr.Slider, ...], dict]:
    """A slider for each of the first components, folded away, and under it what the component is, once unfolded; and
    the arguments of an event that tells it."""
    with gr.Accordion("Principal components", open=False, elem_id="components") as accordion:
        about = gr.HTML("", elem_id="components-about", padding=False)
        sliders, lines = [], []
        for index in range(1, SHOWN + 1):
            sliders.append(gr.Slider(-1, 1, 0, step=0.01, label=f"Component {index}", elem_id=f"component-{index}"))
            lines.append(gr.HTML("", elem_classes="component", padding=False))
    unfolded, told_of = gr.State(False), gr.State("")
    telling = {
        "fn": shown_errors(partial(_told, service)), "inputs": [unfolded, told_of, sae_box],
        "outputs": [told_of, about, *lines], "show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE,
    }
    accordion.expand(lambda: True, None, unfolded, **QUIETLY).then(**telling)
    accordion.collapse(lambda: False, None, unfolded, **QUIETLY)
    sae_box.change(**telling)
    return tuple(sliders), telling


def _told(service: Service, unfolded: bool, told_of: str, sae: str | None):
    """What the components of the SAE's model are, as HTML: on all of them, and on each; before it, of which model.

    Nothing new where they are folded away, or those of this model are told already.
    """
    library = service.library
    model = library.find(sae).model if library.offers(sae or "") else ""
    if not unfolded or model in ("", told_of):
        yield [gr.skip()] * (2 + SHOWN)
        return
    if not library.has(library.find(sae)):
        later = "What each of them is will be told here when a tree or a list has loaded the model."
        yield ["", quiet(f"{_ABOUT} {later}"), *[""] * SHOWN]
        return
    for answer in service.components(sae, top=_TOKENS_TOLD):
        if isinstance(answer, str):
            yield ["", quiet(answer), *[gr.skip()] * SHOWN]
    yield [model, quiet(_ABOUT), *map(_line, answer)]


def _line(component: Component) -> str:
    ends = "".join(
        f"<li><b>{sign}</b> {' '.join(f'<q>{escape(visible(token, spaces=True))}</q>' for token in tokens)}</li>"
        for sign, tokens in (("+", component.positive), ("−", component.negative))
    )
    return f"<p>{percent(component.share)} of the variance</p><ul>{ends}</ul>"
