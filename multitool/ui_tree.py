"""The tab with the definition tree."""

import contextlib
import math
from functools import partial
from pathlib import Path

import gradio as gr

from multitool import engine
from multitool.document import DefinitionTree, read_tree
from multitool.draw import DEFAULT_NODES, render
from multitool.loading import Library
from multitool.recipe import MAX_NODES_LIMIT, TreeRecipe, VectorRecipe
from multitool.text import visible
from multitool.ui_common import ON_MODEL, PRIVATE, save, shown_errors
from multitool.ui_controls import FeatureControls, control_values, vector_recipe

# A feature of the demo whose tree shows at once what the tool is for. The tree is kept: the page opens on it.
OPENING = VectorRecipe(sae="demo/hook_embed", feature=927)
OPENING_TREE = Path(__file__).parent / "demo" / "opening_tree.json"
_EXAMPLE_FEATURES = {"rain": 927, "viruses": 1521, "prison": 648, "stars": 152, "symptoms": 513, "smell": 2006,
                     "military": 1785}
EXAMPLES = {name: VectorRecipe(sae=OPENING.sae, feature=feature) for name, feature in _EXAMPLE_FEATURES.items()}

_CUTOFFS = ["1e-2", *(f"{digit}e-{power}" for power in range(3, 9) for digit in (5, 2, 1))]
_DEFINITIONS_SHOWN = 50
_LIKELIEST_SHOWN = 4


def tree_tab(library: Library, controls: FeatureControls) -> None:
    """Build the tab and wire it to the controls."""
    opening = read_tree(OPENING_TREE.read_bytes())
    summary, image, files, rows, as_json = _views(opening, DEFAULT_NODES)
    with gr.Row(elem_id="examples"):
        gr.Markdown("Examples")
        examples = {name: gr.Button(name, size="sm", min_width=60) for name in EXAMPLES}
    with gr.Accordion("Prompt and growth", open=False):
        prompt = gr.Textbox(
            TreeRecipe.prompt, label="Prompt", max_lines=3, elem_id="prompt",
            info="{ghost} stands where the unknown token goes. A definition closes the quote left open at the end.",
        )
        with gr.Row():
            cutoff = gr.Dropdown(
                _CUTOFFS, value="5e-5", label="Cutoff", allow_custom_value=True, elem_id="cutoff",
                info="Smallest probability of a path; smaller grows a larger tree",
            )
            max_nodes = gr.Number(
                TreeRecipe.max_nodes, label="Most nodes", precision=0, minimum=1, maximum=MAX_NODES_LIMIT,
                info="If there are more, the most probable are kept",
            )
        with gr.Row():
            top_k = gr.Slider(1, 20, TreeRecipe.top_k, step=1, label="Continuations per node (top_k)")
            max_depth = gr.Slider(1, 50, TreeRecipe.max_depth, step=1, label="Longest path in tokens")
        stop_at_quote = gr.Checkbox(TreeRecipe.stop, label="Stop at the closing quote or the end of the text")
    with gr.Row():
        grow = gr.Button("Grow tree", variant="primary", scale=3, elem_id="grow")
        stop = gr.Button("Stop", scale=1, elem_id="stop")
    status = gr.Textbox(summary, show_label=False, container=False, lines=1, max_lines=8, interactive=False,
                        elem_id="status")
    picture = gr.Image(
        image, type="filepath", format="png", interactive=False, show_label=False, label="Definition tree",
        buttons=["download", "fullscreen"], elem_id="tree-picture",
    )
    with gr.Row():
        trim = gr.Slider(
            _untrimmed(opening), 0, _untrimmed(opening), step=0.05, elem_id="trim",
            label="Trim: least probability (10^x)", info="Redraws without growing again; larger shows less",
        )
        drawn = gr.Slider(10, 250, DEFAULT_NODES, step=10, label="Nodes in the picture", elem_id="drawn",
                          info="The most probable ones")
    with gr.Row():
        downloads = [gr.DownloadButton(kind.upper(), path, size="sm", elem_id=kind) for kind, path in files.items()]
        upload = gr.UploadButton("Open a saved tree (JSON)", size="sm", file_types=[".json"], elem_id="open")
    table = gr.Dataframe(
        rows, headers=["Probability", "Definition", "Complete"], datatype="str", interactive=False, wrap=True,
        label="Most probable definitions", column_widths=["15%", "70%", "15%"], max_height=420, elem_id="definitions",
    )
    with gr.Accordion("JSON", open=False):
        json_view = gr.JSON(as_json, show_label=False, open=False, max_height=500, elem_id="json-view")
    document = gr.State(opening)

    growing = {
        "fn": shown_errors(partial(_grow, library)),
        "inputs": [*controls.all(), prompt, top_k, cutoff, max_depth, max_nodes, stop_at_quote],
        "outputs": [document, status], "show_progress": "hidden", **ON_MODEL, **PRIVATE,
    }
    reset_trim = {
        "fn": lambda document: gr.update(minimum=_untrimmed(document), value=_untrimmed(document)),
        "inputs": document, "outputs": trim, "show_progress": "hidden", **PRIVATE,
    }
    show = {
        "fn": shown_errors(_shown), "inputs": [document, trim, drawn],
        "outputs": [status, picture, *downloads, table, json_view], "show_progress_on": picture, **PRIVATE,
    }
    growths = [grow.click(**growing)]
    for name, example in EXAMPLES.items():
        fill = examples[name].click(
            lambda example=example: control_values(library, example), None, controls.all(), queue=False, **PRIVATE
        )
        growths.append(fill.then(**growing))
    for growth in growths:
        growth.success(**reset_trim).then(**show)
        growth.failure(_summary, document, status, show_progress="hidden", **PRIVATE)
    # A stopped tree is shown as far as it has grown.
    stop.click(None, cancels=growths, **PRIVATE).then(**reset_trim).then(**show)
    gr.on([trim.release, drawn.release], trigger_mode="always_last", **show)
    upload.upload(shown_errors(_opened), upload, document, **PRIVATE).success(**reset_trim).then(**show)


def _grow(library: Library, *values):
    """Grow a tree; after every level the tree so far, and in words how far it is."""
    *vector_values, prompt, top_k, cutoff, max_depth, max_nodes, stop = values
    with contextlib.suppress(TypeError, ValueError):  # the recipe says what is wrong with it
        cutoff = float(cutoff)
    vector = vector_recipe(*vector_values)
    recipe = TreeRecipe(
        prompt=prompt, top_k=top_k, cutoff=cutoff, max_depth=max_depth, max_nodes=max_nodes, stop=stop
    )
    yield gr.skip(), "Starting …"
    for document in engine.definition_trees(library, vector, recipe):
        likeliest = "\n".join(
            f"{definition.probability:.1%}  {visible(definition.text)}{'' if definition.complete else ' …'}"
            for definition in document.definitions(_LIKELIEST_SHOWN)
        )
        progress = f"Growing: {document.depth_grown} tokens deep, {len(document.tree)} nodes, {document.seconds:.1f} s"
        yield document, f"{progress}\n{likeliest}"


def _opened(path: str) -> DefinitionTree:
    return read_tree(Path(path).read_bytes())


def _untrimmed(document: DefinitionTree) -> float:
    """The trim slider's position that trims nothing: its step at or below the tree's own cutoff."""
    return math.floor(math.log10(max(document.effective_cutoff, 1e-8)) * 20) / 20


def _shown(document: DefinitionTree, trim: float, drawn: int) -> list:
    """The views of a tree, trimmed, for the outputs of the tab."""
    cutoff = min(10**trim, 0.999)
    if cutoff > document.effective_cutoff:
        document = document.trimmed(cutoff)
    summary, image, files, rows, as_json = _views(document, drawn)
    return [summary, image, *files.values(), rows, as_json]


def _views(document: DefinitionTree, drawn: int) -> tuple[str, str, dict[str, str], list[list], dict]:
    """A tree in words, as a picture, as files by format, as a table of definitions, and as JSON."""
    files = render(document, ["png", "svg"], max_nodes=drawn) | {"json": document.to_json()}
    paths = {kind: save(content, document.settings, f"tree.{kind}") for kind, content in files.items()}
    rows = [
        [f"{definition.probability:.3%}", visible(definition.text), "yes" if definition.complete else "…"]
        for definition in document.definitions(_DEFINITIONS_SHOWN)
    ]
    return _summary(document), paths["png"], paths, rows, document.to_dict()


def _summary(document: DefinitionTree) -> str:
    state = "" if document.complete else "Stopped before it was whole. "
    ended = float(document.tree.cumulative_prob[document.tree.end].sum())
    return visible(
        f"{state}{len(document.tree)} nodes at cutoff {document.effective_cutoff:.3g}, grown in "
        f"{document.seconds:.1f} s. "
    ) + (f"Definitions that end within the tree hold {ended:.1%} of the probability." if ended else "")
