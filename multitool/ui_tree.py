"""The tab with the definition tree."""

import contextlib
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import gradio as gr

from multitool.defaults import DEMO, Opening
from multitool.demo_model import DEMO_MODEL
from multitool.document import DefinitionTree, read_tree
from multitool.draw import DEFAULT_NODES, render
from multitool.errors import UserError
from multitool.recipe import TreeRecipe, VectorRecipe
from multitool.text import visible
from multitool.tree import Definition, Tree
from multitool.ui_common import PRIVATE, on_model, save, shown_errors
from multitool.ui_controls import FeatureControls, control_values, vector_recipe
from multitool.ui_evidence import tree_verdict
from multitool.ui_service import Service

# The tree of the demo's opening feature is kept, so that the page opens on it.
DEMO_TREE = Path(__file__).parent / "demo" / "opening_tree.json"
_DEMO_FEATURES = {"rain": 927, "viruses": 1521, "prison": 648, "stars": 152, "symptoms": 513, "smell": 2006,
                  "military": 1785}
_GEMMA_FEATURES = ((12, 121), (6, 17), (0, 0), (0, 7), (10, 777))
# By model: features whose trees are worth a look, by the text of a button.
EXAMPLES = {
    DEMO_MODEL: {name: VectorRecipe(sae=DEMO.sae, feature=feature) for name, feature in _DEMO_FEATURES.items()},
    "google/gemma-2b": {
        f"layer {layer}: {feature}": VectorRecipe(
            sae=f"gemma-2b-res-jb/blocks.{layer}.hook_resid_post", feature=feature
        )
        for layer, feature in _GEMMA_FEATURES
    },
}

_CUTOFFS = ["1e-2", *(f"{digit}e-{power}" for power in range(3, 9) for digit in (5, 2, 1))]
_DEFINITIONS_SHOWN = 50
_LIKELIEST_SHOWN = 4
# Each with its kind and its width.
_COLUMNS = {"Probability (%)": ("number", "15%"), "Definition": ("str", "70%"), "Complete": ("str", "15%")}
_CHECKED_COLUMNS = {
    "Probability (%)": ("number", "15%"), "Definition": ("str", "45%"), "Complete": ("str", "13%"),
    "Lift (nats)": ("number", "14%"), "Fires": ("number", "13%"),
}
_ORDERS = ("probability", "lift")


@dataclass(frozen=True)
class _Views:
    """A tree as it is shown: in words, as a picture, as files by format, as a table of definitions, and as JSON."""

    summary: str = "No tree yet. Choose a feature and press “Grow tree”."
    verdict: str = ""
    picture: str | None = None
    files: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(("png", "svg", "json")))
    columns: dict = field(default_factory=lambda: _COLUMNS)
    rows: list[list] = field(default_factory=list)
    as_json: dict | None = None

    @property
    def table(self) -> dict:
        """The definitions, for a dataframe."""
        datatypes, widths = zip(*self.columns.values(), strict=True)
        return {
            "value": {"headers": list(self.columns), "data": self.rows},
            "datatype": list(datatypes), "column_widths": list(widths),
        }


def tree_tab(service: Service, controls: FeatureControls, opening: Opening) -> None:
    """Build the tab and wire it to the controls."""
    document = read_tree(DEMO_TREE.read_bytes()) if opening.recipe == DEMO else None
    views = _views(document, DEFAULT_NODES) if document else _Views()
    recipes = {
        name: recipe
        for name, recipe in EXAMPLES.get(opening.entry.model, {}).items() if service.library.offers(recipe.sae)
    }
    with gr.Row(elem_id="examples", visible=bool(recipes)):
        gr.Markdown("Examples")
        examples = {name: gr.Button(name, size="sm", min_width=60) for name in recipes}
    with gr.Accordion("Prompt and growth", open=False):
        prompt = gr.Textbox(
            TreeRecipe.prompt, label="Prompt", max_lines=3, max_length=service.settings.max_prompt, elem_id="prompt",
            info="{ghost} stands where the unknown token goes. A definition closes the quote left open at the end.",
        )
        with gr.Row():
            cutoff = gr.Dropdown(
                _CUTOFFS, value="5e-5", label="Cutoff", allow_custom_value=True, elem_id="cutoff",
                info="Smallest probability of a path; smaller grows a larger tree",
            )
            max_nodes = gr.Number(
                min(TreeRecipe.max_nodes, service.settings.max_nodes), label="Most nodes", precision=0, minimum=1,
                maximum=service.settings.max_nodes,
                info="If there are more, the most probable are kept",
            )
        with gr.Row():
            top_k = gr.Slider(1, 20, TreeRecipe.top_k, step=1, label="Continuations per node (top_k)")
            max_depth = gr.Slider(1, 50, TreeRecipe.max_depth, step=1, label="Longest path in tokens")
        stop_at_quote = gr.Checkbox(TreeRecipe.stop, label="Stop at the closing quote or the end of the text")
    with gr.Row():
        grow = gr.Button("Grow tree", variant="primary", scale=3, elem_id="grow")
        stop = gr.Button("Stop", scale=1, elem_id="stop")
        go_on = gr.Button("Go on", scale=1, visible=False, elem_id="go-on")
        check = gr.Button("Check this tree", scale=2, interactive=document is not None, elem_id="check")
    status = gr.Textbox(views.summary, show_label=False, container=False, lines=1, max_lines=8, interactive=False,
                        elem_id="status")
    verdict = gr.HTML(views.verdict, elem_id="tree-verdict")
    picture = gr.Image(
        views.picture, type="filepath", format="png", interactive=False, show_label=False, label="Definition tree",
        buttons=["download", "fullscreen"], elem_id="tree-picture",
    )
    untrimmed = _untrimmed(document)
    with gr.Row():
        trim = gr.Slider(
            untrimmed, 0, untrimmed, step=0.05, elem_id="trim",
            label="Trim: least probability (10^x)", info="Redraws without growing again; larger shows less",
        )
        highest = _highest_lift(document)
        least_lift = gr.Slider(
            0, highest or 1, 0, step=0.1, label="Least lift", elem_id="least-lift", visible=highest is not None,
            info="In nats, over the centroid and random directions; 0 shows all",
        )
        drawn = gr.Slider(10, 250, DEFAULT_NODES, step=10, label="Nodes in the picture", elem_id="drawn",
                          info="The most probable ones")
    with gr.Row():
        downloads = [
            gr.DownloadButton(kind.upper(), path, size="sm", elem_id=kind) for kind, path in views.files.items()
        ]
        upload = gr.UploadButton("Open a saved tree (JSON)", size="sm", file_types=[".json"], elem_id="open")
    order = gr.Radio(_ORDERS, value=_ORDERS[0], label="Definitions by", elem_id="order", visible=highest is not None)
    table = gr.Dataframe(
        **views.table, interactive=False, wrap=True, label="Definitions", max_height=420,
        elem_id="definitions",
    )
    with gr.Accordion("JSON", open=False):
        json_view = gr.JSON(views.as_json, show_label=False, open=False, max_height=500, elem_id="json-view")
    document = gr.State(document)

    growing = {
        "fn": shown_errors(partial(_grow, service)),
        "inputs": [*controls.all(), prompt, top_k, cutoff, max_depth, max_nodes, stop_at_quote],
        "outputs": [document, status], "show_progress": "hidden", **on_model(service.settings), **PRIVATE,
    }
    going_on = growing | {"fn": shown_errors(partial(_go_on, service)), "inputs": document}
    reset = {
        "fn": _reset, "inputs": document, "outputs": [trim, least_lift, order], "show_progress": "hidden", **PRIVATE,
    }
    show = {
        "fn": shown_errors(_shown), "inputs": [document, trim, least_lift, order, drawn],
        "outputs": [status, verdict, go_on, check, picture, *downloads, table, json_view],
        "show_progress_on": picture, **PRIVATE,
    }
    growths = [grow.click(**growing), go_on.click(**going_on)]
    for name, recipe in recipes.items():
        fill = examples[name].click(
            partial(control_values, service.library, recipe), None, controls.all(), queue=False, **PRIVATE
        )
        growths.append(fill.then(**growing))
    for growth in growths:
        # A tree whose growth broke off is shown as far as it has grown. (Plain `then` would also follow a stop.)
        growth.success(**reset).then(**show)
        growth.failure(**reset).then(**show)
    checking = check.click(**growing | {"fn": shown_errors(partial(_check, service)), "inputs": document})
    checking.success(_of_lifts, document, [least_lift, order], show_progress="hidden", **PRIVATE).then(**show)
    checking.failure(**show)
    stop.click(None, cancels=[*growths, checking], **PRIVATE).then(**reset).then(**show)
    gr.on([trim.release, least_lift.release, order.input, drawn.release], trigger_mode="always_last", **show)
    upload.upload(shown_errors(_opened), upload, document, **PRIVATE).success(**reset).then(**show)


def _grow(service: Service, *values):
    """Grow a tree; after every level the tree so far, and in words how far it is."""
    *vector_values, prompt, top_k, cutoff, max_depth, max_nodes, stop = values
    with contextlib.suppress(TypeError, ValueError):  # the recipe says what is wrong with it
        cutoff = float(cutoff)
    vector = vector_recipe(*vector_values)
    recipe = TreeRecipe(
        prompt=prompt, top_k=top_k, cutoff=cutoff, max_depth=max_depth, max_nodes=max_nodes, stop=stop
    )
    yield from _progress(service.trees(vector, recipe))


def _go_on(service: Service, document: DefinitionTree | None):
    """Grow on a tree whose growth was stopped."""
    if document is None:
        raise UserError("There is no tree to go on with. Grow one first.")
    yield from _progress(service.continued(document))


def _check(service: Service, document: DefinitionTree | None):
    """Find the evidence for the tree that is shown."""
    if document is None:
        raise UserError("There is no tree to check. Grow one first.")
    yield gr.skip(), "Checking …"
    for answer in service.checked(document):
        yield (gr.skip(), answer) if isinstance(answer, str) else (answer, "Checked.")


def _progress(answers):
    """For the document and the status: the tree so far, and in words how far it is or what it waits for."""
    yield gr.skip(), "Starting …"
    for answer in answers:
        if isinstance(answer, str):
            yield gr.skip(), answer
            continue
        if not len(answer.tree):  # the tree that is shown stays until there is something to show
            continue
        likeliest = "\n".join(
            f"{definition.probability:.1%}  {visible(definition.text)}{'' if definition.complete else ' …'}"
            for definition in answer.definitions(_LIKELIEST_SHOWN)
        )
        progress = f"Growing: {answer.depth_grown} tokens deep, {len(answer.tree)} nodes, {answer.seconds:.1f} s"
        yield answer, f"{progress}\n{likeliest}"


def _opened(path: str) -> DefinitionTree:
    return read_tree(Path(path).read_bytes())


def _untrimmed(document: DefinitionTree | None) -> float:
    """The trim slider's position that trims nothing: its step at or below the tree's own cutoff."""
    if document is None:
        return -8
    return math.floor(math.log10(max(document.effective_cutoff, 1e-300)) * 20) / 20


def _reset(document: DefinitionTree | None) -> list:
    """The controls of the views, so that they leave out nothing of this tree."""
    return [gr.update(minimum=_untrimmed(document), value=_untrimmed(document)), *_of_lifts(document)]


def _of_lifts(document: DefinitionTree | None) -> list:
    """The slider that prunes by lift and the order of definitions; hidden where no lifts are known."""
    highest = _highest_lift(document)
    known = highest is not None
    return [gr.update(visible=known, value=0, maximum=highest or 1), gr.update(visible=known, value=_ORDERS[0])]


def _highest_lift(document: DefinitionTree | None) -> float | None:
    """The slider's end, where there is still something to show; None if no lifts are known."""
    lifts = None if document is None else document.tree.lift
    if lifts is None or not len(lifts):
        return None
    return max(0.1, math.floor(lifts.max() * 10) / 10)


def _shown(document: DefinitionTree | None, trim: float, least_lift: float, order: str, drawn: int) -> list:
    """The views of a tree, trimmed, for the outputs of the tab."""
    if document is None:
        views = _Views()
        return [views.summary, views.verdict, *(gr.skip() for _ in range(5 + len(views.files)))]
    may_go_on = gr.update(visible=not document.complete)
    may_check = gr.update(interactive=len(document.tree) > 0)
    cutoff = min(10**trim, 0.999)
    if cutoff > document.effective_cutoff:
        document = document.trimmed(cutoff)
    if document.tree.lifts is not None and least_lift > 0:
        document = document.lifted(least_lift)
    views = _views(document, drawn, order)
    return [views.summary, views.verdict, may_go_on, may_check, views.picture, *views.files.values(),
            gr.Dataframe(**views.table), views.as_json]


def _views(document: DefinitionTree, drawn: int, order: str = _ORDERS[0]) -> _Views:
    files = render(document, ["png", "svg"], max_nodes=drawn) | {"json": document.to_json()}
    paths = {kind: save(content, document.settings, f"tree.{kind}") for kind, content in files.items()}
    checked = document.tree.lifts is not None
    return _Views(
        _summary(document), tree_verdict(document.evidence), paths["png"], paths,
        _CHECKED_COLUMNS if checked else _COLUMNS,
        [_row(document.tree, definition) for definition in _ordered(document, order)],
        document.to_dict(),
    )


def _ordered(document: DefinitionTree, order: str) -> list[Definition]:
    """The definitions that are listed, the first ones of that order."""
    if order == "lift" and document.tree.lifts is not None:
        lift = document.tree.lift
        return sorted(document.definitions(), key=lambda definition: -lift[definition.node])[:_DEFINITIONS_SHOWN]
    return document.definitions(_DEFINITIONS_SHOWN)


def _row(tree: Tree, definition: Definition) -> list:
    probability = float(f"{100 * definition.probability:.3g}")
    row = [probability, visible(definition.text), "yes" if definition.complete else "…"]
    if tree.lifts is None:
        return row
    activation = float(tree.activation[definition.node])  # nan: it was not read
    return [*row, round(float(tree.lift[definition.node]), 1), "" if math.isnan(activation) else round(activation, 2)]


def _summary(document: DefinitionTree) -> str:
    state = "" if document.complete else "Not whole: it was stopped, or its time was up. “Go on” grows the rest. "
    ended = float(document.tree.cumulative_prob[document.tree.end].sum())
    return visible(
        f"{state}{len(document.tree)} nodes at cutoff {document.effective_cutoff:.3g}, grown in "
        f"{document.seconds:.1f} s. "
    ) + (f"Definitions that end within the tree hold {ended:.1%} of the probability." if ended else "")
