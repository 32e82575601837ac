"""Jobs done on this machine and waited for: the Python API, which the command line uses too."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from multitool.errors import GhostError, UserError
from multitool.jobs.atlas import atlas_facts, describe_job, prepare_atlas
from multitool.jobs.atlas_parts import AtlasProgress, atlas_plan, made
from multitool.jobs.candidates import Candidate
from multitool.jobs.card import card_job
from multitool.jobs.check import check_job
from multitool.jobs.components import PrincipalComponent, components_job
from multitool.jobs.continuation import SteeredTexts, steer_job
from multitool.jobs.feature_card import FeatureCard
from multitool.jobs.features import resolve, scans
from multitool.jobs.find import FoundFeatures, find_by_text_job, find_by_tokens_job, find_like_job
from multitool.jobs.progress import Progress
from multitool.jobs.steps import COUNTED, Ask, Grow, Job, Keep, Prepare, Result
from multitool.jobs.study import part_job, prepare_study
from multitool.jobs.suggest import Suggestion, suggest_job
from multitool.jobs.token_list import list_job
from multitool.jobs.token_table import TokenTable
from multitool.jobs.tree import grown, prepare_trees, tree_job
from multitool.jobs.trials import Trial
from multitool.recipes.atlas import ATLAS_TREE, MOST_WORKERS, PER_PART, AtlasRecipe
from multitool.recipes.components import COMPONENTS_SHOWN, TOKENS_PER_END
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.fields import whole
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.atlas_files import Part
from multitool.store.library import Library
from multitool.trees.document import DefinitionTree

Report = Callable[[Progress], None]  # of what is kept on disk, as a vocabulary scan, and of many ghosts' answers


def no_report(progress: Progress) -> None:
    """Tell nobody."""


def stream(job: Job[Result], library: Library, report: Report = no_report) -> Generator[Any, None, Result]:
    """Do the steps of a job. Yields what grows as it does, such as a tree, and returns the job's result."""
    answer: Any = None
    problem: GhostError | None = None
    while True:
        try:
            step = job.throw(problem) if problem else job.send(answer)
        except StopIteration as end:
            return end.value
        answer, problem = None, None
        match step:
            case Prepare():
                answer = step.work()
            case Keep():
                task = step.task
                for done in library.do(task):
                    report(Progress(task.heading, done, task.n_rows, task.counted, kept=True))
            case Ask():
                try:
                    answer = _answers(library, step, report)
                except GhostError as error:  # a job of many ghosts goes on without the one
                    problem = error
            case Grow():
                for growth in library.do(step.task):
                    answer = step.document(growth)
                    yield answer


def _answers(library: Library, step: Ask, report: Report) -> list:
    """The answers to a step's tasks; of many ghosts it is told how many have answered."""
    answers: list = []
    for task in step.tasks:
        for some in library.do(task):
            answers.append(some)
            if step.n_ghosts:
                report(Progress(COUNTED.get(step.purpose, "Asking the model"), sum(map(len, answers)), step.n_ghosts))
    return answers


def finish(job: Job[Result], library: Library, report: Report = no_report) -> Result:
    """Do the steps of a job; its result."""
    steps = stream(job, library, report)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def definition_trees(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe = TreeRecipe(), *, model: str | None = None
) -> Iterator[DefinitionTree]:
    """The definition tree as it grows, once per level; the last one is the whole tree.

    Stop asking and the growth stops. Nothing has been computed before the first is asked for. A vocabulary scan that is
    missing is done first.

    >>> for tree in mt.definition_trees(library, vector, mt.TreeRecipe(cutoff=2e-2)):
    ...     print(tree.depth_grown, tree.complete)
    1 False
    2 True

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the recipe cannot be followed.
    """
    yield from stream(tree_job(library, vector_recipe, tree_recipe, model=model), library)


def definition_tree(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe = TreeRecipe(), *, model: str | None = None
) -> DefinitionTree:
    """The whole definition tree. Arguments and errors as in ``definition_trees``.

    >>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=5e-3))
    >>> tree.definitions(1)[0].text
    'water'
    """
    return finish(tree_job(library, vector_recipe, tree_recipe, model=model), library)


def trees_of_prompts(
    library: Library, vector_recipe: VectorRecipe, tree_recipes: Sequence[TreeRecipe], *, model: str | None = None
) -> Iterator[DefinitionTree]:
    """One whole definition tree for each recipe, all of the same vector: several prompts in one go.

    All prompts are checked against the model before the first tree grows. Arguments and errors as in
    ``definition_trees``.

    >>> asked = [mt.TreeRecipe(prompt=prompt, cutoff=1e-2) for prompt in ("meaning", 'A "{ghost}" is a "')]
    >>> for tree in mt.trees_of_prompts(library, vector, asked):
    ...     print(tree.asked)
    The meaning of "{ghost}" is "
    A "{ghost}" is a "
    """
    for prepared in finish(prepare_trees(library, vector_recipe, tree_recipes, model=model), library):
        yield finish(grown(prepared), library)


def check_tree(library: Library, document: DefinitionTree, *, model: str | None = None) -> DefinitionTree:
    """The tree with its evidence: figures and a verdict, at each node its lifts, at the definitions what fires there.

    A vocabulary scan that is missing is done first.

    >>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=2e-3))
    >>> print(mt.check_tree(library, tree).evidence["sentence"])
    This tree agrees with what fires the feature. The feature fires on ...

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the tree's recipe cannot be followed.
    """
    return finish(check_job(library, document, model=model), library)


def suggest(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe = TreeRecipe(), *, model: str | None = None
) -> Suggestion:
    """The settings that suit a feature best, of those in ``jobs.candidates.candidates_for``.

    The vector's settings are ``found.recipe``; ``found.tree`` is the recipe of the tree with the injection that goes
    with them, if one does. A vocabulary scan that is missing is done first.

    >>> found = mt.suggest(library, vector)  # half a minute
    >>> print(found.sentence)
    Of 32 settings the best is ...
    >>> tree = mt.definition_tree(library, found.recipe, found.tree)

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the recipe cannot be followed.
    """
    return finish(suggest_job(library, vector_recipe, tree_recipe, model=model), library)


def token_table(
    library: Library,
    vector_recipe: VectorRecipe,
    list_recipe: ListRecipe = ListRecipe(),
    *,
    model: str | None = None,
    evidence: bool = False,
) -> TokenTable:
    """The token list. A vocabulary scan or a Jacobian lens that is missing is made first; else only lenses run the
    model.

    >>> table = mt.token_table(library, vector, mt.ListRecipe(measure="logit_lens", words=True, top=5))
    >>> [token for rank, token, *numbers in table.rows][0]
    ' rain'

    Args:
        model: another model than the SAE names: a hub id or a folder.
        evidence: add how strongly each token fires the feature, and judge the list by it; needs the scan. Of a list by
            lens: add how much each token rises when the model is pushed along the feature's decoder, and judge it by
            that.

    Raises:
        UserError: the recipe cannot be followed.
    """
    return finish(list_job(library, vector_recipe, list_recipe, model=model, evidence=evidence), library)


def continuations(
    library: Library, vector_recipe: VectorRecipe, steer_recipe: SteerRecipe = SteerRecipe(), *,
    model: str | None = None,
) -> SteeredTexts:
    """A text continued by the model with and without a feature: unsteered, and under each of several strengths.

    Each continuation has its figures, and a caution where the steering breaks the text.

    >>> storm = mt.VectorRecipe(sae="demo/blocks.6.hook_resid_post", feature=941)
    >>> recipe = mt.SteerRecipe(text="Outside there was", strengths=(0.45,), length=8)
    >>> found = mt.continuations(library, storm, recipe)
    >>> [continued.text for continued in found.continuations]
    [' a woman with a baby. She was', ' a storm. I was in the city']

    Args:
        vector_recipe: its SAE and its feature, or several with weights, are steered along; its weights do not count.
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: a recipe cannot be followed.
    """
    return finish(steer_job(library, vector_recipe, steer_recipe, model=model), library)


def components(
    library: Library, sae: str | None = None, *, model: str | None = None, count: int = COMPONENTS_SHOWN,
    top: int = TOKENS_PER_END,
) -> list[PrincipalComponent]:
    """The first principal components of a model's embeddings: their share of variance, the tokens at their ends.

    >>> for component in mt.components(library, "demo/hook_embed", count=2):
    ...     print(component.index, component.positive[:3])
    1 (' ', ' (', ' and')
    2 (...)

    Args:
        sae: whose model it is, unless ``model`` is given: a hub id or a folder.
        count: how many components.
        top: how many tokens at each end.

    Raises:
        UserError: neither tells a model, it cannot be had, or a number is out of its range.
    """
    return finish(components_job(library, sae, model=model, count=count, top=top), library)


def try_features(
    library: Library,
    vector_recipe: VectorRecipe,
    features: Sequence[int],
    tree_recipe: TreeRecipe = TreeRecipe(),
    *,
    candidates: Sequence[Candidate] | None = None,
    model: str | None = None,
    report: Report = no_report,
) -> Iterator[list[Trial]]:
    """Settings tried on many features of a recipe's SAE, some features at a time: what a ``study.Study`` is made of.

    A feature is left out where a setting gives it no vector.

    Args:
        candidates: what is tried; those of ``candidates_for`` if none are named.

    Raises:
        UserError: the recipe cannot be followed, or there is no such feature.
    """
    job = prepare_study(library, vector_recipe, tree_recipe, model=model, candidates=candidates)
    study = finish(job, library, report)
    for part in study.parts(features):
        yield finish(part_job(study, part), library)


def atlas(
    library: Library,
    vector_recipes: Sequence[VectorRecipe],
    features: Iterable[int] | None,
    out: str | PathLike,
    tree_recipe: TreeRecipe = ATLAS_TREE,
    atlas_recipe: AtlasRecipe = AtlasRecipe(),
    *,
    model: str | None = None,
    per_part: int = PER_PART,
    ray: bool | str = False,
    workers: int | None = None,
    report: Report = no_report,
) -> Iterator[AtlasProgress]:
    """Describe many features of an SAE, and write them to a folder as a table in Parquet files. Yields how far it is.

    What is there already is not described again: whenever it is stopped, even killed, the same call goes on. A feature
    that has no vector is a row that says why. Every file holds the recipes and versions in its schema's metadata.

    >>> for progress in mt.atlas(library, [vector], range(926, 928), "rain", mt.TreeRecipe(cutoff=2e-2)):
    ...     print(progress.done, "of", progress.total)
    0 of 2
    2 of 2
    >>> import pandas
    >>> table = pandas.read_parquet("rain/data")
    >>> table["feature"].tolist()
    [926, 927]

    Args:
        vector_recipes: how the vectors are made, of one SAE; their feature does not matter. Each gives every feature a
            row.
        features: their numbers; None: all of the SAE.
        out: the folder.
        model: another model than the SAE names: a hub id or a folder.
        per_part: how many features are described together and written to one file.
        ray: let workers by Ray describe, each with a model of its own: on the cluster at this address (as ``ray.init``
            takes it), or for True on this machine, or where RAY_ADDRESS or a connection to Ray tells.
        workers: with Ray, how many; None: one for each GPU, or for each machine where there is none.
        report: is told how far that is which takes long before the first feature; workers by Ray do not tell.

    Raises:
        UserError: the recipes cannot be followed, there is no such feature, or the folder cannot be written or is
            another atlas'; Ray is not installed or cannot be reached.
    """
    if workers is not None:
        whole(workers, "workers", 1, MOST_WORKERS)
        if ray is False:
            raise UserError("workers is about Ray. Add --ray (in Python ray=True), or leave it out.")
    if ray is not False and library.given:
        raise UserError(
            f"Workers by Ray load models and SAEs by their names, and {' and '.join(library.given)} came as objects. "
            "Leave ray out."
        )
    if not fspath(out):
        raise UserError("out is empty. Name the folder that the atlas is written to.")
    facts = atlas_facts(library, vector_recipes, tree_recipe, atlas_recipe, model=model)
    plan = atlas_plan(library, facts, features, per_part)
    recipes = tuple(vector_recipes), tree_recipe, atlas_recipe, model

    def describe(parts: Sequence[Part]) -> Generator[tuple[Part, Sequence[dict]], None, None]:
        if ray is not False:
            from multitool.jobs.atlas_ray import described_by_ray

            return described_by_ray(
                partial(_prepared, library.options | {"dtype": facts["dtype"]}, *recipes), parts,
                address=ray if isinstance(ray, str) else None,
                workers=workers, use_gpus=library.options["device"] != "cpu",
            )
        rows_of = describer(library, *recipes, report)
        return ((part, rows_of(part)) for part in parts)

    yield from made(Path(out), plan, describe)


def describer(
    library: Library, vector_recipes: Sequence[VectorRecipe], tree_recipe: TreeRecipe, atlas_recipe: AtlasRecipe,
    model: str | None = None, report: Report = no_report,
) -> Callable[[Part], list[dict]]:
    """What gives the rows of an atlas for some features, with all that it takes made ready.

    Raises:
        UserError: a recipe cannot be followed.
    """
    prepared = finish(prepare_atlas(library, vector_recipes, tree_recipe, atlas_recipe, model=model), library, report)
    return lambda part: finish(describe_job(prepared, part), library, report)


def _prepared(options: dict, *recipes) -> Callable[[Part], list[dict]]:
    """In another process."""
    return describer(Library(**options), *recipes)


def scan_if_missing(
    library: Library,
    vector_recipe: VectorRecipe,
    *,
    model: str | None = None,
    always: bool = False,
    report: Report = no_report,
) -> None:
    """Do the vocabulary scans that a recipe's vector needs.

    Args:
        always: one is needed whatever the recipe's direction, to know what fires its one feature.

    Raises:
        UserError: the recipe cannot be followed, or a scan cannot be done.
    """
    finish(scans(resolve(library, vector_recipe, model), always=always), library, report)


def feature_card(
    library: Library, sae: str, feature: int, *, tree: DefinitionTree | None = None, label: bool = True,
    model: str | None = None,
) -> FeatureCard:
    """What is known of a feature, in one place: where it fires, what it writes, how often it fires, its neighbours.

    Plain prose that has not been read at the SAE's hook is read first; no vocabulary is scanned.

    >>> tree = mt.definition_tree(library, mt.VectorRecipe(sae="demo/hook_embed", feature=927))
    >>> card = mt.feature_card(library, "demo/hook_embed", 927, tree=tree)
    >>> print(card.sentence)
    The model reads this feature as: water, water falling from the sky, ... It fires on 3 of its 10 likeliest ...
    >>> card.contexts[0].token, card.written.more[0].token
    ('rain', ' rain')

    Args:
        tree: of the feature, for the sentence on what the model reads it as.
        label: ask Neuronpedia for its label, where the SAE is there; it is kept. Whatever goes wrong, there is none.
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the SAE or its model cannot be had, there is no such feature or it has no numbers, or the tree is
            another feature's.
    """
    return finish(card_job(library, sae, feature, model=model, tree=tree, label=label), library)


def find_by_text(
    library: Library, sae: str, text: str, *, top: int = TextSearch.top, model: str | None = None
) -> FoundFeatures:
    """The features that fire on a text more than on plain prose, and at each of its tokens those that do most.

    >>> found = mt.find_by_text(library, "demo/hook_embed", "We had rain all day.")
    >>> [feature.feature for feature in found.features[:1]], found.columns[0]
    ([927], 'above_prose')

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the SAE or its model cannot be had or read, or the text is empty or too long.
    """
    return finish(find_by_text_job(library, TextSearch(sae=sae, text=text, top=top), model=model), library)


def find_by_tokens(
    library: Library, sae: str, tokens: str, *, weights: str | None = None, measure: str = TokenSearch.measure,
    top: int = TokenSearch.top, model: str | None = None,
) -> FoundFeatures:
    """The features nearest to a word or a sum of tokens, from the weights alone; or those that fire most on a token.

    >>> found = mt.find_by_tokens(library, "demo/hook_embed", "rain")
    >>> found.features[0].feature, found.features[0].description
    (927, '...rain...')
    >>> queens = mt.find_by_tokens(library, "demo/hook_embed", "king - man + woman", weights="decoder")

    Args:
        weights: what gives a feature its direction; None: what suits lists of the SAE.
        measure: cosine, or activation: how strongly they fire on the token alone.
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the SAE or its model cannot be had, a word is no token of the model, or the tokens cancel.
    """
    asked = TokenSearch(sae=sae, tokens=tokens, weights=weights, measure=measure, top=top)
    return finish(find_by_tokens_job(library, asked, model=model), library)


def find_like(
    library: Library, sae: str, feature: int, *, by: str = LikenessSearch.by, among: Sequence[str] = (),
    top: int = LikenessSearch.top, model: str | None = None,
) -> FoundFeatures:
    """The features nearest to a feature, in its SAE and in others of the same model.

    >>> found = mt.find_like(library, "demo/hook_embed", 927, top=3)
    >>> found.settings["among"][0], len(found.features)
    ('demo/hook_embed', 3)

    Args:
        by: decoder or encoder: whose directions are compared.
        among: the SAEs whose features are compared; none: its own, and the model's others that need no download.
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: an SAE cannot be had or is of another model, there is no such feature, or it is dead.
    """
    asked = LikenessSearch(sae=sae, feature=feature, by=by, among=tuple(among), top=top)
    return finish(find_like_job(library, asked, model=model), library)
