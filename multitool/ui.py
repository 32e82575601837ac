"""The page: one set of controls for the feature and its vector, shared by the tree and the token list."""

import contextlib
import math
import random
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr

from multitool import engine
from multitool.document import DefinitionTree, read_tree
from multitool.draw import DEFAULT_NODES, render
from multitool.errors import UserError
from multitool.loading import Library, strongest_contexts
from multitool.recipe import DEFAULT_PROMPT, MAX_NODES_LIMIT, ListRecipe, TreeRecipe, VectorRecipe
from multitool.registry import demo_saes, find_sae, operator_saes
from multitool.text import visible
from multitool.ui_common import save, shown_errors
from multitool.ui_endpoints import add_endpoints

TITLE = "SAE feature multitool"
THEME = gr.themes.Soft(primary_hue="blue", neutral_hue="slate")
CSS = Path(__file__).with_name("page.css")

# A feature of the demo whose tree shows at once what the tool is for; its tree is kept, so that the page opens on it.
OPENING = VectorRecipe(sae="demo/hook_embed", feature=1521)
OPENING_TREE = Path(__file__).parent / "demo" / "opening_tree.json"
EXAMPLES = {
    "virus": OPENING,
    "doctor": VectorRecipe(sae="demo/hook_embed", feature=1450),
    "sports": VectorRecipe(sae="demo/hook_embed", feature=410),
    "weekdays": VectorRecipe(sae="demo/hook_embed", feature=310),
    "clothes": VectorRecipe(sae="demo/hook_embed", feature=531),
    "university": VectorRecipe(sae="demo/hook_embed", feature=1930),
    "animals": VectorRecipe(sae="demo/hook_embed", feature=1280),
}

_CUTOFFS = [f"{digit}e-{power}" for power in range(2, 9) for digit in (5, 2, 1)][2:]
_DEFINITIONS_SHOWN = 50
_LIKELIEST_SHOWN = 4
_MODEL_QUEUE = "model"


@dataclass(frozen=True)
class _Controls:
    """The controls that tree and list share, in the order in which handlers get their values."""

    sae: gr.Dropdown
    feature: gr.Number
    weights: gr.Radio
    encoder_share: gr.Slider
    centroid: gr.Checkbox
    scale: gr.Slider
    first_component: gr.Slider
    more_components: gr.Textbox

    def all(self) -> list:
        return list(vars(self).values())


def build(library: Library) -> gr.Blocks:
    """The whole interface, page and API.

    Args:
        library: where models and SAEs come from.
    """
    with gr.Blocks(title=TITLE, delete_cache=(3600, 24 * 3600), analytics_enabled=False) as page:
        gr.Markdown(
            f"# {TITLE}\n"
            "What does a feature of a sparse autoencoder mean? Its weights become the embedding of a *ghost token*, "
            "a word that does not exist, and the model is asked to define it."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                controls = _feature_controls(library)
            with gr.Column(scale=3, min_width=480), gr.Tabs():
                with gr.Tab("Definition tree"):
                    _tree_tab(library, controls)
                with gr.Tab("Token list"):
                    _list_tab(library, controls)
        add_endpoints(library, OPENING, _MODEL_QUEUE)
    return page.queue(max_size=32, default_concurrency_limit=4)


# ── The feature and its vector ──────────────────────────────────────────────────────────────────────────────────────


def _feature_controls(library: Library) -> _Controls:
    sae_entry = find_sae(OPENING.sae)
    sae, subject = library.load(sae_entry)
    names = [entry.name for entry in (*demo_saes(), *operator_saes())]
    with gr.Group():
        sae_box = gr.Dropdown(
            names, value=OPENING.sae, label="SAE", allow_custom_value=True, filterable=True, elem_id="sae",
            info="RELEASE/SAE_ID; type any residual-stream SAE of sae-lens' registry",
        )
        with gr.Row():
            feature = gr.Number(
                OPENING.feature, label="Feature", precision=0, minimum=0, elem_id="feature", info=_range(sae.d_sae),
            )
            another = gr.Button("Random feature", size="sm", min_width=80)
    evidence = gr.HTML(_evidence(OPENING.sae, OPENING.feature), elem_id="evidence")
    with gr.Group():
        weights = gr.Radio(
            ["encoder", "decoder", "mix"], value="encoder", label="Weights", elem_id="weights",
            info="Encoder: what the feature looks for. Decoder: what it writes.",
        )
        share = gr.Slider(0, 1, 0.5, step=0.05, label="Encoder's share of the mix", visible=False)
        scale = gr.Slider(
            0.1, 10, round(subject.space.mean_distance, 2), step=0.01, label="Scale", elem_id="scale",
            info="Distance from the starting point; at first as far out as a usual token",
        )
        centroid = gr.Checkbox(
            True, label="Start from the centroid", info="The mean of all token embeddings; without it, from zero"
        )
    with gr.Accordion("Principal components", open=False):
        component = gr.Slider(
            0, 1, 0, step=0.01, label="Weight of the first component",
            info="Mixed into the direction, which keeps the rest. The distance then differs from the scale.",
        )
        more = gr.Textbox("", label="Weights of further components", placeholder="e.g. 0.1, -0.05", max_lines=1)

    weights.change(lambda kind: gr.update(visible=kind == "mix"), weights, share, queue=False,
                   api_visibility="private")
    sae_box.change(shown_errors(lambda name: _switch(library, name)), sae_box, [feature, scale],
                   api_visibility="private", show_progress_on=sae_box)
    gr.on([sae_box.change, feature.change], _evidence, [sae_box, feature], evidence, queue=False,
          show_progress="hidden", api_visibility="private")
    another.click(shown_errors(lambda name: _random_feature(library, name)), sae_box, feature,
                  api_visibility="private", show_progress="hidden")
    return _Controls(sae_box, feature, weights, share, centroid, scale, component, more)


def _switch(library: Library, name: str):
    """Load another SAE and its model; the feature's range and the scale follow."""
    sae, subject = library.load(find_sae(name))
    return gr.update(info=_range(sae.d_sae)), round(subject.space.mean_distance, 2)


def _random_feature(library: Library, name: str) -> int:
    sae, _ = library.load(find_sae(name))
    return random.randrange(sae.d_sae)


def _range(d_sae: int) -> str:
    return f"0 to {d_sae - 1}"


def _evidence(name: str, feature: int | None) -> str:
    """What is known of a feature besides its weights: where it fired, and its page on Neuronpedia."""
    try:
        entry = find_sae(name or "")
    except UserError:
        return ""
    feature = int(feature or 0)
    parts = []
    contexts = strongest_contexts(entry, feature)
    if contexts:
        title = "Strongest tokens" if entry.kind == "embed" else "Strongest contexts"
        rows = "".join(
            f"<li>{_text(context.before)}<mark>{_text(context.token, spaces=not context.before)}</mark>"
            f"{_text(context.after)}</li>"
            for context in contexts
        )
        kind = "tokens" if entry.kind == "embed" else "contexts"
        parts.append(f'<div class="contexts {kind}"><b>{title}</b><ul>{rows}</ul></div>')
    if entry.neuronpedia_id:
        url = escape(f"https://neuronpedia.org/{entry.neuronpedia_id}/{feature}", quote=True)
        parts.append(
            f'<div class="neuronpedia"><a href="{url}" target="_blank" rel="noopener">Neuronpedia: feature {feature}'
            f'</a><iframe src="{url}?embed=true" title="Neuronpedia" loading="lazy"></iframe></div>'
        )
    return "".join(parts)


def _text(text: str, *, spaces: bool = False) -> str:
    return escape(visible(text, spaces=spaces))


def _vector_recipe(sae, feature, weights, encoder_share, centroid, scale, first, more) -> VectorRecipe:
    try:
        further = [float(part) for part in more.replace(";", ",").split(",") if part.strip()]
    except ValueError as error:
        raise UserError(
            f"Weights of further components are {more!r}; write numbers separated by commas, e.g. 0.1, -0.05."
        ) from error
    pca = [first, *further] if first or further else []
    return VectorRecipe(
        sae=sae, feature=feature, weights=weights, encoder_share=encoder_share, centroid=centroid, scale=scale, pca=pca
    )


# ── Definition tree ─────────────────────────────────────────────────────────────────────────────────────────────────


def _tree_tab(library: Library, controls: _Controls) -> None:
    opening = read_tree(OPENING_TREE.read_bytes())
    with gr.Row(elem_id="examples"):
        gr.Markdown("Examples")
        examples = {name: gr.Button(name, size="sm", min_width=60) for name in EXAMPLES}
    with gr.Accordion("Prompt and growth", open=False):
        prompt = gr.Textbox(
            DEFAULT_PROMPT, label="Prompt", max_lines=3, elem_id="prompt",
            info="{ghost} stands where the unknown token goes. A definition closes the quote left open at the end.",
        )
        with gr.Row():
            cutoff = gr.Dropdown(
                _CUTOFFS, value="5e-5", label="Cutoff", allow_custom_value=True, elem_id="cutoff",
                info="Smallest probability of a path; smaller grows a larger tree",
            )
            top_k = gr.Slider(1, 20, 5, step=1, label="Continuations per node (top_k)")
        with gr.Row():
            max_depth = gr.Slider(1, 50, 25, step=1, label="Longest path in tokens")
            max_nodes = gr.Number(2000, label="Most nodes", precision=0, minimum=1, maximum=MAX_NODES_LIMIT,
                                  info="The most probable are kept")
        stop_at_quote = gr.Checkbox(True, label="Stop at the closing quote or the end of the text")
    with gr.Row():
        grow = gr.Button("Grow tree", variant="primary", elem_id="grow")
        stop = gr.Button("Stop", variant="stop", elem_id="stop")
    status = gr.Textbox(
        _summary(opening), label="Progress", lines=2, max_lines=8, interactive=False, elem_id="status"
    )
    picture = gr.Image(
        label="Definition tree", type="filepath", format="png", interactive=False, buttons=["download", "fullscreen"],
        elem_id="tree-picture",
    )
    with gr.Row():
        trim = gr.Slider(-8, 0, _lowest(opening), step=0.05, elem_id="trim",
                         label="Trim: least probability, as a power of ten",
                         info="Redraws without growing again; larger shows less")
        drawn = gr.Slider(10, 250, DEFAULT_NODES, step=10, label="Nodes in the picture", elem_id="drawn",
                          info="The most probable ones")
    with gr.Row():
        png = gr.DownloadButton("PNG", size="sm", elem_id="png")
        svg = gr.DownloadButton("SVG", size="sm", elem_id="svg")
        json_file = gr.DownloadButton("JSON", size="sm", elem_id="json")
        upload = gr.UploadButton("Open a saved tree (JSON)", size="sm", file_types=[".json"], elem_id="open")
    table = gr.Dataframe(
        headers=["Probability", "Definition", "Ended"], datatype="str", interactive=False, wrap=True,
        label="Most probable definitions", column_widths=["110px", "auto", "80px"], max_height=420,
        elem_id="definitions",
    )
    with gr.Accordion("JSON", open=False):
        json_view = gr.JSON(show_label=False, max_height=500, elem_id="json-view")
    document = gr.State(opening)

    results = [status, picture, png, svg, json_file, table, json_view]
    inputs = [*controls.all(), prompt, top_k, cutoff, max_depth, max_nodes, stop_at_quote]
    private = {"api_visibility": "private"}
    show = {"fn": shown_errors(_shown), "inputs": [document, trim, drawn], "outputs": results, **private}
    growing = {
        "fn": shown_errors(lambda *values: _grow(library, *values)), "inputs": inputs, "outputs": [document, status],
        "concurrency_limit": 2, "concurrency_id": _MODEL_QUEUE, "show_progress": "hidden", **private,
    }
    untrimmed = {"fn": _lowest, "inputs": document, "outputs": trim, "show_progress": "hidden", **private}

    events = [grow.click(**growing)]
    for name, example in EXAMPLES.items():
        fill = examples[name].click(
            lambda example=example: _filled(library, example), None, controls.all(), queue=False, **private
        )
        events.append(fill.then(**growing))
    for event in events:
        event.success(**untrimmed).then(**show)
    # A stopped tree is shown as far as it has grown.
    stop.click(None, cancels=events, **private).then(**untrimmed).then(**show)
    gr.on([trim.release, drawn.release], **show, trigger_mode="always_last")
    upload.upload(shown_errors(_opened), upload, document, **private).success(**untrimmed).then(**show)
    gr.context.Context.root_block.load(**show)


def _filled(library: Library, recipe: VectorRecipe) -> list:
    """The controls' values for a recipe."""
    _, subject = library.load(find_sae(recipe.sae))
    scale = round(subject.space.mean_distance, 2) if recipe.scale is None else recipe.scale
    first, *more = recipe.pca or (0.0,)
    return [recipe.sae, recipe.feature, recipe.weights, recipe.encoder_share, recipe.centroid, scale, first,
            ", ".join(map(str, more))]


def _grow(library: Library, *values):
    """Grow a tree; after every level the tree so far, and in words how far it is."""
    *vector_values, prompt, top_k, cutoff, max_depth, max_nodes, stop = values
    with contextlib.suppress(TypeError, ValueError):  # the recipe says what is wrong with it
        cutoff = float(cutoff)
    vector = _vector_recipe(*vector_values)
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


def _lowest(document: DefinitionTree) -> float:
    """The trim slider's position that trims nothing."""
    return math.floor(math.log10(max(document.effective_cutoff, 1e-8)) * 20) / 20


def _shown(document: DefinitionTree, trim: float, drawn: int) -> list:
    """A tree in all its forms, for the outputs of the tab."""
    if 10**trim > document.effective_cutoff:
        document = document.trimmed(min(10**trim, 0.999999))
    settings, png = document.settings, render(document, "png", max_nodes=drawn)
    files = {
        "png": save(png, settings, "tree.png"),
        "svg": save(render(document, "svg", max_nodes=drawn), settings, "tree.svg"),
        "json": save(document.to_json(), settings, "tree.json"),
    }
    rows = [
        [f"{definition.probability:.3%}", visible(definition.text), "yes" if definition.complete else "…"]
        for definition in document.definitions(_DEFINITIONS_SHOWN)
    ]
    return [_summary(document), files["png"], *files.values(), rows, document.to_dict()]


def _summary(document: DefinitionTree) -> str:
    state = "" if document.complete else "Stopped before it was whole. "
    ended = float(document.tree.cumulative_prob[document.tree.end].sum())
    return visible(
        f"{state}{len(document.tree)} nodes at cutoff {document.effective_cutoff:.3g}, grown in "
        f"{document.seconds:.1f} s. "
    ) + (f"Definitions that end within the tree hold {ended:.1%} of the probability." if ended else "")


# ── Token list ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _list_tab(library: Library, controls: _Controls) -> None:
    with gr.Row():
        exponent = gr.Slider(
            0.1, 5, 1.4, step=0.1, label="Exponent",
            info="Larger: nearer to the vector. Smaller: farther from the centroid, which is near to everything.",
        )
        top = gr.Slider(10, 1000, 100, step=10, label="Tokens")
    make = gr.Button("List tokens", variant="primary", elem_id="list")
    status = gr.Textbox("", show_label=False, placeholder="No list yet.", interactive=False, container=False)
    csv_file = gr.DownloadButton("CSV", size="sm", elem_id="csv")
    table = gr.Dataframe(
        headers=[column.replace("_", " ") for column in engine.TOKEN_COLUMNS], interactive=False, max_height=640,
        datatype=["number", "str", "number", "number", "number", "number"], elem_id="tokens", show_search="search",
        label="Nearest tokens (␣ is a blank)",
    )
    make.click(
        shown_errors(lambda *values: _listed(library, *values)), [*controls.all(), exponent, top],
        [status, table, csv_file], concurrency_limit=2, concurrency_id=_MODEL_QUEUE, api_visibility="private",
    )


def _listed(library: Library, *values) -> list:
    *vector_values, exponent, top = values
    table = engine.token_table(library, _vector_recipe(*vector_values), ListRecipe(exponent=exponent, top=top))
    rows = [
        [rank, visible(token, spaces=True), token_id, *(round(number, 4) for number in numbers)]
        for rank, token, token_id, *numbers in table.rows
    ]
    status = (
        f"{table.settings['sae']} feature {table.settings['feature']}: distance from the centroid "
        f"{table.vector['distance_from_centroid']:.3g} (tokens: {table.vector['mean_token_distance']:.3g} on average)"
    )
    return [visible(status), rows, save(table.to_csv(), table.settings, "tokens.csv")]
