"""Requests of visitors: limits before any work, words while they wait, the same request again from memory."""

import pickle
import re
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from atlas_material import row, write_atlas
from tiny import random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs.candidates import GRID, Candidate
from multitool.jobs.features import recipe_vector, resolve
from multitool.jobs.local import token_table
from multitool.jobs.steps import Prepare
from multitool.model.tasks import AskTask, ChangeTask, CheckTask, GrowthTask, LensTask, PullbackTask, SteerTask
from multitool.page import callers
from multitool.page.service import LIGHT_CALLS, Service
from multitool.page.settings import ServerSettings
from multitool.recipes.atlas import AtlasSearch
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.recipe import LENSES, MEASURES, ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.store.library import Library
from multitool.store.scans import ScanTask
from multitool.trees.document import DefinitionTree

RAIN = VectorRecipe(sae="demo/hook_embed", feature=927)
SMALL = TreeRecipe(cutoff=2e-2)


@pytest.fixture
def grown(demo_library):
    """The tasks that reached the model, and a service that does them."""
    tasks = []

    def work(task):
        tasks.append(task)
        yield from demo_library.do(task)

    return tasks, Service(demo_library, ServerSettings(), work)


@contextmanager
def caller(name: str):
    """Requests here are this caller's."""
    before = callers._CALLER.set(name)
    yield
    callers._CALLER.reset(before)


def documents(answers) -> list[DefinitionTree]:
    return [answer for answer in answers if isinstance(answer, DefinitionTree) and len(answer.tree)]


def test_the_same_request_again_does_not_reach_the_model(grown):
    tasks, service = grown
    *_, first = service.trees(RAIN, SMALL)
    again, = service.trees(RAIN, TreeRecipe(cutoff=2e-2))
    assert again.to_json() == first.to_json()
    assert len(tasks) == 1
    list(service.trees(RAIN, TreeRecipe(cutoff=3e-2)))
    assert len(tasks) == 2


def test_several_prompts_are_asked_in_one_go_each_within_the_limits(grown):
    tasks, service = grown
    small = [TreeRecipe(prompt=name, cutoff=2e-2) for name in ("meaning", "synonym")]
    answers = list(service.trees_of_prompts(RAIN, small))
    assert [len(answer) for answer in answers if not isinstance(answer, str)] == [1, 2]
    assert [tree.settings["prompt"] for tree in answers[-1]] == [recipe.prompt for recipe in small]
    assert all(tree.complete for tree in answers[-1])
    assert len(tasks) == 2

    def refusal(prompts, **settings) -> str:
        with pytest.raises(UserError) as refused:
            list(Service(service.library, ServerSettings(**settings), None).trees_of_prompts(RAIN, prompts))
        return str(refused.value)

    assert refusal([]) == "There are 0 prompts; give 1 to 8 in one go."
    assert "There are 9 prompts" in refusal([SMALL] * 9)
    assert "max_nodes is 2000; here it can be at most 99" in refusal([TreeRecipe(max_nodes=9), SMALL], max_nodes=99)
    chat = TreeRecipe(prompt="x" * 30, chat=True, answer="{ghost}" + "y" * 20)
    assert "The prompt has 57 characters; here it can have at most 56" in refusal([chat], max_prompt=56)


def test_a_tree_that_was_left_is_not_kept_for_the_next(grown):
    tasks, service = grown
    answers = service.trees(RAIN, SMALL)
    begun = next(answer for answer in answers if isinstance(answer, DefinitionTree) and len(answer.tree))
    answers.close()
    assert not begun.complete
    *_, whole = service.trees(RAIN, SMALL)
    assert whole.complete
    assert len(tasks) == 2


def test_what_was_grown_on_from_somebodys_file_is_not_given_to_others(grown):
    tasks, service = grown
    begun, *_ = documents(service.trees(RAIN, SMALL))
    forged = DefinitionTree(**vars(begun) | {"tree": begun.tree.select(begun.tree.token_id == begun.tree.token_id[0])})
    *_, from_forged = service.continued(forged)
    assert tasks[-1].begun is forged.tree
    vector, tree = recipes(forged.settings)
    *_, honest = service.trees(vector, tree)
    assert len(honest.tree) > len(from_forged.tree)


def test_only_so_many_trees_are_kept(demo_library):
    tasks = []

    def work(task):
        tasks.append(task)
        yield from demo_library.do(task)

    service = Service(demo_library, ServerSettings(), work, trees_kept=2)
    for cutoff in (2e-2, 3e-2, 4e-2):
        list(service.trees(RAIN, TreeRecipe(cutoff=cutoff)))
    list(service.trees(RAIN, TreeRecipe(cutoff=4e-2)))
    assert len(tasks) == 3
    list(service.trees(RAIN, TreeRecipe(cutoff=2e-2)))
    assert len(tasks) == 4


def test_the_same_request_is_grown_anew_where_the_files_on_this_machine_have_changed(tmp_path, tokenizer):
    folder = write_model(tmp_path / "model", tiny_model("llama"), tokenizer)
    sae = random_sae(tmp_path / "sae", d_model=32, model=str(folder))
    library = Library(device="cpu", dtype="float32", allow_folder=True)
    service = Service(library, ServerSettings(), library.do)
    recipe, small = VectorRecipe(sae=str(sae), feature=3), TreeRecipe(cutoff=0.1, max_depth=2)
    *_, first = service.trees(recipe, small)
    again, = service.trees(recipe, small)
    assert again is first
    tiny_model("llama", seed=1).save_pretrained(folder)
    *_, other = service.trees(recipe, small)
    assert other.tree.token_id.tolist() != first.tree.token_id.tolist()


def test_an_encoder_is_carried_back_once_for_all_who_ask_until_the_files_change(tmp_path, tokenizer, fresh_cache):
    folder = write_model(tmp_path / "model", tiny_model("llama"), tokenizer)
    sae = random_sae(tmp_path / "sae", d_model=32, d_sae=30, model=str(folder))
    library = Library(device="cpu", dtype="float32", allow_folder=True)
    tasks = []

    def work(task):
        tasks.append(task)
        yield from library.do(task)

    service = Service(library, ServerSettings(), work)
    recipe, small = VectorRecipe(sae=str(sae), feature=3, weights="pullback"), TreeRecipe(cutoff=0.1, max_depth=2)
    *words, first = service.table(recipe, ListRecipe(top=5))
    assert any(word.startswith("Carrying the encoder back") for word in words)
    *_, _ = service.table(recipe, ListRecipe(top=5), evidence=True)
    *_, tree = service.trees(recipe, small)
    assert kinds(tasks) == [PullbackTask, ScanTask, GrowthTask]
    list(service.checked(tree))
    *_, another = service.trees(replace(recipe, feature=4), small)
    list(service.checked(another))  # and those of the features to compare with
    assert kinds(tasks).count(PullbackTask) == 3 and len(tasks) == 9
    tiny_model("llama", seed=1).save_pretrained(folder)
    *_, other = service.table(recipe, ListRecipe(top=5))
    assert kinds(tasks).count(PullbackTask) == 4 and other.rows != first.rows


@pytest.mark.parametrize(
    ("tree", "limit"),
    [
        (TreeRecipe(max_nodes=101), "at most 100"),
        (TreeRecipe(prompt='"{ghost}"' + "x" * 50, max_nodes=9), "at most 50"),
    ],
)
def test_a_limit_is_checked_before_anything_is_loaded(tree, limit):
    service = Service(None, ServerSettings(max_nodes=100, max_prompt=50), None)
    with pytest.raises(UserError, match=limit):
        next(service.trees(RAIN, tree))


AT_ONCE = 3  # tokens of a list whose weights need not arrive


@pytest.fixture
def slow(monkeypatch):
    """A service whose weights arrive when the test says so."""
    arrived = threading.Event()
    progress = iter(["Fetching x: 1 of 3 MB", "Fetching x: 2 of 3 MB"])
    entry = SimpleNamespace(name="x/y", model="m", default_weights="encoder", list_weights="encoder")
    library = SimpleNamespace(
        find=lambda name: entry, place=lambda name: entry, progress=lambda entry: next(progress, ""),
    )

    def list_job(library, vector, recipe, **_):
        def work():
            begun.append(recipe.top)
            return recipe.top == AT_ONCE or arrived.wait(20)

        yield Prepare(work, "list" if recipe.measure == "dot" else "load")
        return "the table"

    begun: list[int] = []
    monkeypatch.setattr("multitool.page.service.list_job", list_job)
    monkeypatch.setattr("multitool.page.service._COMPUTING", 1)
    service = Service(library, ServerSettings(calls=1), None, poll_seconds=0.01)
    service.begun = begun
    yield service, arrived
    arrived.set()


def test_who_waits_is_told_how_far_it_is(slow):
    service, arrived = slow
    answers = service.table(RAIN, ListRecipe())
    told = [next(answers) for _ in range(3)]
    assert told == ["Fetching x: 1 of 3 MB", "Fetching x: 2 of 3 MB", "Loading x/y and m …"]
    arrived.set()
    *_, last = answers
    assert last == "the table"


def test_who_leaves_does_not_wait_for_the_download(slow):
    service, arrived = slow
    answers = service.table(RAIN, ListRecipe())
    next(answers)
    answers.close()
    assert not arrived.is_set()


def test_a_list_does_not_wait_behind_what_others_have_loaded(slow):
    service, _ = slow
    others = [service.table(RAIN, ListRecipe()) for _ in range(LIGHT_CALLS + 1)]
    for answers in others:
        next(answers)
    with caller("another"):
        *_, last = service.table(RAIN, ListRecipe(top=AT_ONCE))
    assert last == "the table"


def test_what_would_be_computed_for_one_who_has_left_is_not_begun(slow):
    service, arrived = slow
    first, second = (service.table(RAIN, ListRecipe(top=top, measure="dot")) for top in (5, 6))
    next(first), next(second)
    second.close()
    arrived.set()
    assert [*first][-1] == "the table"
    assert [*service.table(RAIN, ListRecipe(top=7, measure="dot"))][-1] == "the table"
    assert service.begun == [5, 7]


def test_what_a_caller_has_left_behind_counts_as_theirs_until_it_ends(slow):
    service, arrived = slow
    for _ in range(LIGHT_CALLS + 1):
        answers = service.table(RAIN, ListRecipe())
        next(answers)
        answers.close()
    with pytest.raises(UserError, match=f"may have {LIGHT_CALLS + 1} requests"):
        next(service.table(RAIN, ListRecipe()))
    with caller("another"):
        assert next(service.table(RAIN, ListRecipe()))
    arrived.set()
    for _ in range(1000):
        with suppress(UserError):
            next(service.table(RAIN, ListRecipe()))
            return
        time.sleep(0.01)
    pytest.fail("it never ended")


def test_of_all_lists_only_the_lenses_reach_the_model(grown):
    tasks, service = grown
    list(service.table(RAIN, ListRecipe(measure="activation")))  # the vocabulary is scanned once
    tasks.clear()
    for measure in MEASURES:
        *words, table = service.table(RAIN, ListRecipe(top=5, measure=measure, words=True))
        assert len(table.rows) == 5
        assert kinds(tasks) == ([LensTask] if measure in LENSES else [])
        tasks.clear()


@pytest.mark.parametrize("measure", LENSES)
def test_a_list_by_lens_waits_for_a_gpu_and_is_that_of_the_library(demo_library, measure):
    tasks = []

    def work(task):
        tasks.append(task)
        yield from demo_library.do(task)

    service = Service(demo_library, ServerSettings(zero_gpu=True), work)
    recipe = ListRecipe(top=5, measure=measure, negative=True)
    *words, table = service.table(RAIN, recipe, evidence=True)
    assert "Waiting for a GPU …" in words
    assert "Pushing the model along the feature's decoder, to see what it then says …" in words
    plain = token_table(demo_library, RAIN, recipe)
    assert [row[1] for row in table.rows] == [row[1] for row in plain.rows] and table.settings == plain.settings
    assert [row[-2] for row in table.rows] == pytest.approx([row[-1] for row in plain.rows], rel=1e-5)
    assert table.evidence.other_end and table.evidence.rising == 100
    assert [(type(task), task.directions.shape) for task in tasks] == [(LensTask, (21, 576)), (ChangeTask, (1, 576))]
    *_, again = service.table(RAIN, replace(recipe, top=3), evidence=True)
    assert len(tasks) == 3, "what the pushes changed is kept"
    assert again.evidence.to_dict() == table.evidence.to_dict()


def test_a_logit_lens_without_a_gpu_says_so(demo_library):
    def work(task):
        raise UserError("No GPU is to be had.")
        yield

    with pytest.raises(UserError, match="No GPU"):
        list(Service(demo_library, ServerSettings(), work).table(RAIN, ListRecipe(measure="logit_lens")))


# ── The vector alone ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_vector_follows_the_controls_where_everything_is_in_memory(grown, monkeypatch):
    _, service = grown
    list(service.table(RAIN, ListRecipe(top=1)))
    usual = service.vector(RAIN)
    assert usual.distance_from_centroid == pytest.approx(usual.mean_token_distance, rel=1e-4)
    # A moved scale or component makes the direction not again.
    monkeypatch.setattr("multitool.page.service.recipe_heading", None)
    assert service.vector(replace(RAIN, scale=3.5)).distance_from_centroid == pytest.approx(3.5, rel=1e-4)
    mixed = replace(RAIN, pca=(0.3, -0.2))
    assert torch.equal(service.vector(mixed).v, recipe_vector(resolve(service.library, mixed)).v)


def test_no_vector_is_loaded_or_scanned_for(demo_library, fresh_cache):
    demo_library.load(demo_library.find(RAIN.sae))
    service = Service(demo_library, ServerSettings(), None)
    assert service.vector(VectorRecipe(sae="gemma-2b-res-jb/blocks.6.hook_resid_post", feature=1)) is None
    assert service.vector(replace(RAIN, feature="1 + gpt2-small-res-jb/blocks.0.hook_resid_pre:1")) is None
    assert service.vector(replace(RAIN, weights="vocabulary")) is None
    with pytest.raises(UserError, match="0 to 2047"):
        service.vector(replace(RAIN, feature=2048))


# ── The vocabulary scan ─────────────────────────────────────────────────────────────────────────────────────────────

SCANNING = "Scanning the vocabulary (once for this model and layer)"


@pytest.fixture
def fresh_cache(demo_library, monkeypatch, tmp_path):
    """Scans go to a cache where there are none yet."""
    demo_library.subject(demo_library.find("demo/hook_embed").model)  # its files stay where they are
    monkeypatch.setattr("multitool.store.kept_rows.cache_folder", lambda: tmp_path)
    return tmp_path


def scans(tasks) -> list[ScanTask]:
    return [task for task in tasks if isinstance(task, ScanTask)]


def test_a_list_that_needs_a_scan_waits_for_it_and_the_next_does_not(grown, fresh_cache):
    tasks, service = grown
    by_activation = ListRecipe(top=5, measure="activation")
    *words, table = service.table(RAIN, by_activation)
    assert f"{SCANNING}: 49,152 of 49,152 tokens" in words
    assert any(re.fullmatch(rf"{re.escape(SCANNING)}: [\d,]+ of 49,152 tokens · about .* left", word) for word in words)
    assert table.columns[-1] == "activation" and table.rows[0][1] == " rain"
    *words, _ = service.table(RAIN, by_activation)
    assert not any(SCANNING in word for word in words)
    assert len(scans(tasks)) == 1
    list(service.table(RAIN, ListRecipe(top=5)))
    assert len(tasks) == 1


def test_visitors_at_once_share_one_scan(demo_library, fresh_cache):
    tasks, waiting = [], threading.Event()

    def work(task):
        tasks.append(task)
        for done in demo_library.do(task):
            yield done
            waiting.wait(20)  # until the other one waits

    service = Service(demo_library, ServerSettings(), work, poll_seconds=0.01)
    first = service.table(RAIN, ListRecipe(top=5), evidence=True)
    next(word for word in first if word.startswith(SCANNING))
    second = service.table(RAIN, ListRecipe(top=7), evidence=True)
    assert next(word for word in second if SCANNING in word)
    waiting.set()
    *_, one = first
    *_, other = second
    assert len(one.rows) == 5 and len(other.rows) == 7
    assert len(tasks) == 1


def test_a_scan_that_is_left_is_gone_on_with_by_the_next(demo_library, fresh_cache):
    def work(task):
        if tasks:
            yield from demo_library.do(task)
        else:
            tasks.append(task)
            yield 0
            raise UserError("The GPU was taken away.")

    tasks: list = []
    service = Service(demo_library, ServerSettings(), work)
    with pytest.raises(UserError, match="taken away"):
        list(service.table(RAIN, ListRecipe(top=5), evidence=True))
    left = service.table(RAIN, ListRecipe(top=5), evidence=True)
    next(word for word in left if word.startswith(SCANNING))
    left.close()
    *_, table = service.table(RAIN, ListRecipe(top=5), evidence=True)
    assert table.evidence.verdict == "agrees"


# ── Evidence ────────────────────────────────────────────────────────────────────────────────────────────────────────


def kinds(tasks) -> list[type]:
    return [type(task) for task in tasks]


def test_a_tree_is_checked_and_the_answers_of_the_others_serve_the_next(grown):
    tasks, service = grown
    *_, tree = service.trees(RAIN, SMALL)
    *words, checked = service.checked(tree)
    assert checked.evidence["verdict"] in ("agrees", "partly", "no", "unknown")
    assert checked.tree.lifts.shape == (len(tree.tree), 2)
    assert any(word.startswith("Comparing with control vectors: ") for word in words)
    *_, another = service.trees(VectorRecipe(sae=RAIN.sae, feature=648), SMALL)
    *_, other_checked = service.checked(another)
    assert other_checked.evidence != checked.evidence
    assert kinds(tasks) == [GrowthTask, AskTask, CheckTask, GrowthTask, CheckTask]
    *_, decoded = service.trees(VectorRecipe(sae=RAIN.sae, feature=927, weights="decoder"), SMALL)
    *_, _ = service.checked(decoded)
    assert kinds(tasks)[-3:] == [GrowthTask, AskTask, CheckTask]
    assert decoded.evidence is None


def test_answers_that_did_not_come_are_not_kept(demo_library):
    broken = []

    def work(task):
        if isinstance(task, AskTask) and not broken:
            broken.append(task)
            raise UserError("No GPU is to be had.")
        yield from demo_library.do(task)

    service = Service(demo_library, ServerSettings(), work)
    *_, tree = service.trees(RAIN, SMALL)
    with pytest.raises(UserError, match="No GPU"):
        list(service.checked(tree))
    *_, checked = service.checked(tree)
    assert checked.evidence["n_features"] == 2048


def test_only_a_tree_within_the_limits_is_checked(grown):
    tasks, service = grown
    *_, tree = service.trees(RAIN, SMALL)
    small = Service(service.library, ServerSettings(max_nodes=3, max_prompt=1000), None)
    with pytest.raises(UserError, match="at most 3. Trim it first"):
        list(small.checked(tree))
    longer = DefinitionTree(**vars(tree) | {"settings": tree.settings | {"prompt": '"{ghost}" ' + "x" * 1000}})
    roomy = Service(service.library, ServerSettings(max_prompt=1000), None)
    with pytest.raises(UserError, match="at most 1000"):
        list(roomy.checked(longer))


def test_a_text_is_read_token_by_token(grown):
    _, service = grown
    *_, found = service.activity(RAIN, "No rain at all")
    assert [token for token, _ in found] == ["No", " rain", " at", " all"]
    assert max(found, key=lambda item: item[1])[0] == " rain"
    assert all(value >= 0 for _, value in found)


@pytest.mark.parametrize(("text", "said"), [("", "0 characters"), ("x" * 2001, "2,001 characters"),
                                            ("\U00013000" * 1900, "tokens")])
def test_a_text_that_is_empty_or_too_long_is_not_read(grown, text, said):
    tasks, service = grown
    with pytest.raises(UserError, match=said):
        list(service.activity(RAIN, text))
    assert not tasks


def test_features_are_found_and_a_page_is_told_what_they_wait_for(grown):
    tasks, service = grown
    *words, found = service.found_by_text(TextSearch(sae=RAIN.sae, text="No rain at all"))
    assert all(isinstance(word, str) for word in words) and found.features[0].feature == 927
    *_, found = service.found_by_tokens(TokenSearch(sae=RAIN.sae, tokens="rain"))
    assert found.features[0].feature == 927
    *_, found = service.found_like(LikenessSearch(sae=RAIN.sae, feature=927, top=3))
    assert len(found.features) == 3
    tasks.clear()
    for text in ("", "x" * 2001):
        with pytest.raises(UserError, match="characters; it must have 1 to 2,000"):
            list(service.found_by_text(TextSearch(sae=RAIN.sae, text=text)))
    assert not tasks


def test_an_atlas_is_searched_for_features_that_are_served(tmp_path):
    rows = [row(927, [("rain", 0.5)]), row(3, [("rain", 0.25)]) | {"sae": "gone/sae"}]
    library = Library(device="cpu", dtype="float32", atlas=str(write_atlas(tmp_path, rows)))
    service = Service(library, ServerSettings(), None)
    *_, found = service.found_in_atlas(AtlasSearch(words="rain"))
    assert [(one.sae, one.feature) for one in found.features] == [("demo/hook_embed", 927)]
    with pytest.raises(UserError, match="has no letter or digit"):
        list(service.found_in_atlas(AtlasSearch(words="…")))


def test_a_text_is_continued_as_it_is_written_within_the_time_for_a_request(grown):
    tasks, service = grown
    asked = SteerRecipe(text="Yesterday I went to", strengths=(0.8,), length=3)
    answers = list(service.continuations(RAIN, asked))
    texts = [answer for answer in answers if not isinstance(answer, str)]
    assert [found.progress.done for found in texts] == [0, 1, 2, 3, 3]
    assert [found.complete for found in texts] == [False] * 4 + [True]
    (task,) = (task for task in tasks if isinstance(task, SteerTask))
    assert pickle.loads(pickle.dumps(task)).token_ids == task.token_ids
    with pytest.raises(UserError, match="The text has 2,001 characters"):
        list(service.continuations(RAIN, replace(asked, text="a" * 2001)))


def test_settings_are_suggested(grown, monkeypatch):
    monkeypatch.setattr("multitool.jobs.suggest.candidates_for", lambda *_: GRID[:5])
    _, service = grown
    *words, found = service.suggestion(RAIN, TreeRecipe())
    assert any(word.startswith("Settings tried: ") for word in words)
    assert found.recipe.feature == 927
    assert len(found.rows[0]) == len(found.columns)


def test_settings_with_an_injection_are_asked_in_a_task_of_their_own_that_can_go_to_another_process(
    grown, monkeypatch
):
    tasks, service = grown
    candidates = (Candidate("encoder"), Candidate("decoder", inject_layer=1))
    monkeypatch.setattr("multitool.jobs.suggest.candidates_for", lambda *_: candidates)
    *words, found = service.suggestion(RAIN, TreeRecipe())
    assert [word for word in words if word.startswith("Settings tried")] == [
        "Settings tried: 1 of 2", "Settings tried: 2 of 2",
    ]  # fmt: skip
    plain, injected, _ = (task for task in tasks if isinstance(task, AskTask))
    assert (plain.growth.interventions, injected.growth.interventions.injection.layer) == (None, 1)
    assert pickle.loads(pickle.dumps(injected)).growth.v.shape == (1, 576)
    assert {trial.candidate for trial in found.trials} == set(candidates)
    before = len(tasks)
    *_, again = service.suggestion(RAIN, TreeRecipe())
    assert len(tasks) == before and again.rows == found.rows, "the answers are kept"
