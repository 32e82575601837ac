"""The sliders that mix principal components into the vector, and what each of them is."""

from functools import partial
from html import escape

import gradio as gr

from multitool.errors import UserError, shown
from multitool.jobs.components import PrincipalComponent
from multitool.page.common import QUIETLY, counted, event, quiet
from multitool.page.sae_choice import entry_shown
from multitool.page.service import Service
from multitool.recipes.components import COMPONENTS_SHOWN
from multitool.text import percent, visible

# The sliders' names; they all set ``pca``.
COMPONENTS = tuple(f"component_{index}" for index in range(1, COMPONENTS_SHOWN + 1))
_TOKENS_TOLD = 6  # at each end of a component
_ABOUT = (
    "Directions in which the token embeddings differ most, mixed into the vector, which keeps the rest; a negative "
    "weight points to the other end. The distance from the centroid then differs from the scale."
)


def component_controls(service: Service, sae: gr.Dropdown) -> tuple[dict[str, gr.Slider], dict]:
    """A slider for each of the first components, folded away, and under it what the component is, once unfolded; and
    the arguments of an event that tells it."""
    with gr.Accordion("Principal components", open=False, elem_id="components") as accordion:
        about = gr.HTML("", elem_id="components-about", padding=False)
        sliders, lines = {}, {}
        for index, name in enumerate(COMPONENTS, 1):
            sliders[name] = gr.Slider(-1, 1, 0, step=0.01, label=f"Component {index}", elem_id=f"component-{index}")
            lines[name] = gr.HTML("", elem_classes="component", padding=False)
    unfolded, told_of = gr.State(False), gr.State("")
    telling = event(
        partial(_told, service), {"unfolded": unfolded, "told_of": told_of, "sae": sae},
        {"told_of": told_of, "about": about, **lines}, show_progress="hidden", trigger_mode="always_last",
        **counted(service.light_callers),
    )
    accordion.expand(lambda: True, None, unfolded, **QUIETLY).then(**telling)
    accordion.collapse(lambda: False, None, unfolded, **QUIETLY)
    sae.change(**telling)
    return sliders, telling


def component_values(pca: tuple[float, ...]) -> dict[str, float]:
    """What the sliders show for the weights of components. Raises UserError if they cannot."""
    most = len(COMPONENTS)
    if len(pca) > most or any(abs(weight) > 1 for weight in pca):
        raise UserError(
            f"pca is {shown(list(pca))}; the page has sliders for {most} component weights from -1 to 1. Use "
            "the command line or the API for others."
        )
    return dict(zip(COMPONENTS, [*pca, *[0.0] * (most - len(pca))], strict=True))


def component_weights(values: dict[str, float]) -> tuple[float, ...]:
    """The weights that the sliders show, up to the last that is not 0."""
    weights = [values[name] for name in COMPONENTS]
    return tuple(weights[: max((i for i, weight in enumerate(weights, 1) if weight), default=0)])


def _told(service: Service, unfolded: bool, told_of: str, sae: str | None):
    """What the components of the SAE's model are, as HTML: on all of them, and on each; and of which model.

    Nothing new where they are folded away, or those of this model are told already.
    """
    entry = entry_shown(service.library, sae)
    if entry is None or not unfolded or entry.model == told_of:
        yield {}
        return
    if not service.library.has(entry):
        later = "What each of them is will be told here when a tree or a list has loaded the model."
        yield {"told_of": "", "about": quiet(f"{_ABOUT} {later}"), **dict.fromkeys(COMPONENTS, "")}
        return
    for answer in service.components(entry.name, top=_TOKENS_TOLD):
        if isinstance(answer, str):
            yield {"told_of": "", "about": quiet(answer)}
        else:
            lines = dict(zip(COMPONENTS, map(_line, answer), strict=True))
            yield {"told_of": entry.model, "about": quiet(_ABOUT), **lines}


def _line(component: PrincipalComponent) -> str:
    ends = "".join(
        f"<li><b>{sign}</b> {' '.join(f'<q>{escape(visible(token, spaces=True))}</q>' for token in tokens)}</li>"
        for sign, tokens in (("+", component.positive), ("−", component.negative))
    )
    return f"<p>{percent(component.share)} of the variance</p><ul>{ends}</ul>"
