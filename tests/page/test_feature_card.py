"""Which card the page shows for its controls, how it fills, and what sets the list going beside it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny import random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs.card import begun
from multitool.jobs.feature_card import FeatureCard, Reading
from multitool.jobs.local import definition_tree, feature_card
from multitool.page import feature_card as panel
from multitool.page.callers import Callers
from multitool.page.feature_card import DEMO_CARD, Read, opening_card
from multitool.page.list_tab import _for_another_feature
from multitool.page.opening import DEMO, GEMMA, Opening
from multitool.page.result import Made
from multitool.page.service import Service
from multitool.page.settings import ServerSettings
from multitool.page.tree_tab import DEMO_TREE, _near
from multitool.page.turns import Turns
from multitool.page.vector_controls import SUITING
from multitool.page.vector_upload import OwnVector
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.store.registry import demo_saes
from multitool.trees.document import read_tree

EMBED, GEMMA_SAE = "demo/hook_embed", "gemma-2b-res-jb/blocks.6.hook_resid_post"
HOOK = "blocks.1.hook_resid_post"


def at_once(sae, feature, weights=SUITING, read=None, library=None):
    service = Service(library or Library(), ServerSettings(), None)
    return panel._at_once(service, read, sae=sae, feature=feature, weights=weights)


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_the_card_is_of_a_feature_that_has_a_part_in_the_vector(kind):
    assert (">rain<" in at_once(EMBED, "927", kind)) == DIRECTIONS[kind].of_feature


@pytest.mark.parametrize("feature", ["17 - 5*0.5", "", "x", None])
def test_of_several_features_or_none_there_is_no_card(feature):
    assert at_once(EMBED, feature) == ""
    for sae in (None, "", "no/such"):
        assert at_once(sae, "17") == ""


def test_a_feature_on_neuronpedia_has_a_link_and_its_page_embedded_and_nothing_is_loaded():
    library = Library()
    html = at_once(GEMMA_SAE, " 17 ", library=library)
    assert 'href="https://neuronpedia.org/gemma-2b/6-res-jb/17"' in html
    assert '<iframe src="https://neuronpedia.org/gemma-2b/6-res-jb/17?embed=true"' in html
    assert not library.has(library.find(GEMMA_SAE))


def test_contexts_are_text_whatever_they_hold(tmp_path, monkeypatch):
    hostile = ["x <script>", "<b>$x$</b>", "\n\u202e", 1.5]
    (tmp_path / "contexts.json").write_text(json.dumps({"features": [[hostile]]}))
    entry = replace(demo_saes()[0], folder=tmp_path, kind="resid_post")
    library = SimpleNamespace(find=lambda name: entry, atlas=lambda: None)
    html = panel.card_html(begun(library, "any", 0))
    assert "&lt;script&gt;<mark>&lt;b&gt;$x$&lt;/b&gt;</mark>↵\\u202e" in html


def test_what_a_tree_says_is_told_on_the_card_of_its_feature_alone():
    read = Read(EMBED, 927, Reading(("rain",), False))
    assert "reads this feature as: rain" in at_once(EMBED, "927", read=read)
    assert "reads this feature as" not in at_once(EMBED, "928", read=read)
    assert "reads this feature as" not in at_once("demo/blocks.6.hook_resid_post", "927", read=read)


def test_the_opening_card_is_kept_and_of_no_other_opening():
    entry = Library().find(EMBED)
    opened = opening_card(Opening(DEMO, entry))
    assert (opened.sae, opened.feature) == (DEMO.sae, DEMO.feature)
    assert opened.sentence and opened.contexts and opened.written and opened.histogram and len(opened.nearest) == 5
    assert opening_card(Opening(replace(DEMO, feature=3), entry)) is None
    assert opening_card(Opening(GEMMA, entry)) is None


def test_the_opening_card_is_the_demos(demo_library):
    """Made anew by ``python -m scripts.opening_card``."""
    found = feature_card(demo_library, DEMO.sae, DEMO.feature, tree=read_tree(DEMO_TREE.read_text(encoding="utf-8")))
    kept = json.loads(DEMO_CARD.read_text(encoding="utf-8"))

    def alike(one, other) -> bool:
        match one:
            case dict():
                return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
            case list():
                return len(one) == len(other) and all(map(alike, one, other))
            case float():
                return one == pytest.approx(other, rel=1e-2, abs=1e-3)
        return one == other

    assert alike(kept, replace(found, strongest=()).to_dict()), "scans may be kept here or not"


# With a model


@pytest.fixture(scope="module")
def sae(tmp_path_factory, tokenizer) -> str:
    folder = tmp_path_factory.mktemp("cards")
    model = str(write_model(folder / "model", tiny_model("llama"), tokenizer))
    return str(random_sae(folder / "sae", 32, 20, hook=HOOK, model=model))


@pytest.fixture
def made(tmp_path, monkeypatch, sae):
    """A service whose library has the SAE in memory; and the tasks that reach its model."""
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    library, tasks = Library(device="cpu", dtype="float32", allow_folder=True), []
    library.load(library.find(sae))

    def work(task):
        tasks.append(type(task).__name__)
        yield from library.do(task)

    def service(**settings) -> Service:
        return Service(library, ServerSettings(**settings), work)

    return service, tasks


def told(page, sae, feature, weights, document, **more):
    return panel._told(page, document, sae=sae, feature=feature, weights=weights, **more)


def cards(answers) -> list[FeatureCard]:
    return [answer for answer in answers if isinstance(answer, FeatureCard)]


def test_a_card_fills_part_by_part_and_the_model_comes_only_where_it_may(made, sae):
    service, tasks = made
    page = service()
    first, *_, filled = cards(page.card(sae, 3))
    assert first.nearest == () and len(filled.nearest) == 5 and filled.written and filled.histogram is None
    assert not tasks
    *_, whole = cards(page.card(sae, 3, read=True))
    assert whole.histogram and tasks == ["ProseRowsTask"]
    assert cards(page.card(sae, 3, read=True)) == [whole], "as it is kept"
    assert len(tasks) == 1
    *_, other = cards(page.card(sae, 99, read=True))
    assert other == FeatureCard(sae, 99, other.model), "what cannot be had is left out"


def test_on_zero_gpu_a_card_never_asks_for_the_gpu(made, sae):
    service, tasks = made
    page = service(zero_gpu=True)
    *_, card = cards(page.card(sae, 3, read=True))
    assert card.nearest and card.written and card.histogram is None and not tasks
    tree = definition_tree(page.library, VectorRecipe(sae=sae, feature=3), TreeRecipe(cutoff=2e-2, max_depth=3))
    *_, reading = page.reading(tree)
    assert reading.definitions and reading.hits is None and not tasks
    # What is kept on disk by then is read there, too.
    list(service().card(sae, 3, read=True))
    *_, card = cards(page.card(sae, 3, read=True))
    assert card.histogram and tasks == ["ProseRowsTask"]


def test_after_a_tree_the_card_tells_what_it_says_and_fills(made, sae):
    service, _ = made
    page = service()
    tree = definition_tree(page.library, VectorRecipe(sae=sae, feature=3), TreeRecipe(cutoff=2e-2, max_depth=3))
    answers = list(told(page, sae, "3", SUITING, tree))
    assert answers[0]["read"].reading.hits is None and "reads this feature as" in answers[0]["card"]
    read = [answer["read"].reading for answer in answers if answer.get("read")]
    assert read[-1].hits is not None
    assert "How often" in answers[-1]["card"] and read[-1].sentence.split(": ")[0] in answers[-1]["card"]
    # Another feature has been chosen meanwhile, or there is no tree: it says nothing of that.
    assert list(told(page, sae, "4", SUITING, tree)) == [{"read": None}]
    assert list(told(page, sae, "3", "centroid", tree)) == [{"read": None}]
    assert list(told(page, sae, "3", SUITING, None)) == [{"read": None}]
    assert list(told(page, sae, "3", SUITING, tree, vector=OwnVector((1.0,), "mine"))) == [{"read": None}]


def test_a_card_that_is_refused_says_nothing(made, sae):
    service, _ = made
    page = service()
    page.light_callers = Callers(0, 0)
    assert list(panel._silent(page, lambda: iter([1]))(None)) == []
    page.light_callers = Callers()
    assert list(panel._silent(page, generator)(None)) == [1]


def generator():
    yield 1
    raise UserError("no")


def test_a_near_feature_grows_by_the_weights_that_suit(made, sae):
    service, _ = made
    turns = Turns()
    filled = _near(service(), 4, turns, sae, "decoder")
    assert filled == {"number": 1, "status": "Starting …", "sae": sae, "feature": "4"}
    assert _near(service(), 4, turns, sae, "centroid")["weights"] == SUITING
    for number in (-1, "4", None, True, 1.5):
        with pytest.raises(UserError, match="not there any more"):
            _near(service(), number, turns, sae, "decoder")


# The list


VALUES = {
    "feature": "3", "weights": "encoder", "encoder_share": 0.5, "tokens": "", "centroid": True, "usual_scale": True,
    "scale": 1.0, "measure": "score", "exponent": 1.4, "top": 10, "negative": False, "words": False,
} | {f"component_{number}": 0.0 for number in range(1, 9)}


def test_a_list_is_made_for_another_feature_once_and_only_where_it_takes_no_loading(made, sae):
    service, _ = made
    asked = []

    def making(**given):
        asked.append(given["feature"])
        yield {}

    handler = _for_another_feature(service(), making)
    values = {**VALUES, "sae": sae}
    shown = Made("", (VectorRecipe(sae=sae, feature=3), ListRecipe()))
    list(handler(True, None, **values))
    list(handler(True, shown, **values))  # of this feature
    list(handler(True, shown, **values | {"feature": "4"}))
    list(handler(False, shown, **values | {"feature": "5"}))  # it is not open
    list(handler(True, None, **values | {"feature": "no number"}))
    list(handler(True, None, **values | {"sae": GEMMA_SAE}))  # it would be fetched
    list(handler(True, None, **values | {"weights": "vocabulary"}))  # a scan is missing
    assert asked == ["3", "4"]
    list(_for_another_feature(service(zero_gpu=True), making)(True, None, **values | {"weights": "pullback"}))
    list(_for_another_feature(service(zero_gpu=True), making)(True, None, **values | {"measure": "logit_lens"}))
    assert asked == ["3", "4"], "they would take a GPU"
    list(_for_another_feature(service(zero_gpu=True), making)(True, None, **values))
    assert asked == ["3", "4", "3"]
