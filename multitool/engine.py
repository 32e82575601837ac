"""The whole way, once: recipe → vector → prompt with ghost → tree, or → token list.

The command line, the page and the API all come through here.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from multitool._version import __version__
from multitool.checks import judge_list, prepare_check
from multitool.component import SHOWN, TOKENS, Component, components_of
from multitool.document import DefinitionTree
from multitool.errors import UserError, shown
from multitool.evidence import ListEvidence
from multitool.growth import Growth
from multitool.library import Library
from multitool.loading import Sae
from multitool.logit_lens import LensTask
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.sources import (
    FeatureSource,
    compared,
    missing_scan,
    recipe_vector,
    resolved,
    source_of,
    vector_of,
)
from multitool.steering import scans_for_clamp, tree_task
from multitool.subject import Subject
from multitool.suggestion import Suggestion, prepare_suggestion
from multitool.tables import html_table
from multitool.task import GrowthTask
from multitool.tokens import token_list
from multitool.tree import NO_TREE
from multitool.vector import FeatureVector
from multitool.wording import source_told

TOKEN_COLUMNS = ("rank", "token", "token_id", "score", "distance_to_vector", "distance_to_centroid")


@dataclass(frozen=True)
class TokenTable:
    """A token list with its recipe. A notebook shows it as a table.

    >>> table = mt.token_table(library, vector, mt.ListRecipe(top=3))
    >>> table.columns
    ('rank', 'token', 'token_id', 'score', 'distance_to_vector', 'distance_to_centroid')
    >>> print(table.to_csv().splitlines()[0])
    "rank","token","token_id","score","distance_to_vector","distance_to_centroid"
    """

    columns: tuple[str, ...]  # TOKEN_COLUMNS; cosine, dot or logit_lens of a list by it; activation after a scan
    rows: list[list]  # one list per token, in the order of ``columns``
    settings: dict
    vector: dict
    evidence: ListEvidence | None = None

    def _repr_html_(self) -> str:
        of = f"{source_told(self.settings)}, by {self.settings['measure']}"
        return html_table(of + (f". {self.evidence.sentence}" if self.evidence else ""), self.columns, self.rows)

    def to_csv(self) -> str:
        """A header line and one line per token; tokens are exact, quoted where they need it."""
        text = io.StringIO()
        # Every text in quotes: before Python 3.13 a lone carriage return would not be quoted and end the line.
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()

    def to_dict(self) -> dict:
        """For JSON."""
        found = {
            "schema": "sae-multitool/token-list/1",
            "settings": self.settings,
            "vector": self.vector,
            "tokens": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }
        return found | ({"evidence": self.evidence.to_dict()} if self.evidence else {})


@dataclass(frozen=True)
class PreparedTree:
    """A tree that can be grown: everything is checked and fetched, nothing has been asked of the model yet."""

    task: GrowthTask
    settings: dict  # the recipe with every default resolved, as results carry it
    figures: dict  # of the vector
    token_texts: Sequence[str]
    seconds_before: float = 0.0  # what growing ``task.begun`` took
    entropy_before: float | None = None  # what is known from it

    @property
    def begun(self) -> DefinitionTree:
        """What there is of the tree before anything grows."""
        tree = self.task.begun or NO_TREE
        return self.document(Growth(tree, int(tree.depth.max(initial=0)), self.task.cutoff, False, 0.0))

    def document(self, growth: Growth) -> DefinitionTree:
        """The tree as far as it has grown, with its recipe."""
        return DefinitionTree(
            tree=growth.tree.spelled(self.token_texts),
            settings=self.settings,
            vector=self.figures,
            effective_cutoff=growth.effective_cutoff,
            complete=growth.done,
            seconds=self.seconds_before + growth.seconds,
            depth_grown=growth.depth,
            first_token_entropy=self.entropy_before if growth.entropy is None else growth.entropy,
        )


def prepare_tree(
    library: Library,
    vector_recipe: VectorRecipe,
    tree_recipe: TreeRecipe,
    *,
    model: str | None = None,
    begun: DefinitionTree | None = None,
) -> PreparedTree:
    """Make ready what growing a definition tree takes: fetch and read the weights, build the vector and the prompt.

    A vocabulary scan that the vector needs must be there (``missing_scan``).

    Args:
        model: another model than the SAE names: a hub id or a folder.
        begun: the same tree as it was when its growth was stopped, to be grown on.

    Raises:
        UserError: the recipe cannot be followed.
    """
    vector_recipe = resolved(library, vector_recipe)
    subject, vector = recipe_vector(library, vector_recipe, model)
    task = tree_task(
        library, subject, vector, vector_recipe, tree_recipe, model=model, begun=begun.tree if begun else None
    )
    settings = _resolved(subject, vector_recipe, vector)
    settings |= asdict(tree_recipe) | {"dtype": library.dtype, "version": __version__}
    before = (begun.seconds, begun.first_token_entropy) if begun else ()
    return PreparedTree(task, settings, _figures_of_tree(vector, task), subject.token_texts, *before)


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
    scan_if_missing(library, vector_recipe, model, always=scans_for_clamp(library, vector_recipe, tree_recipe))
    prepared = prepare_tree(library, vector_recipe, tree_recipe, model=model)
    for growth in library.do(prepared.task):
        yield prepared.document(growth)


def definition_tree(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe = TreeRecipe(), *, model: str | None = None
) -> DefinitionTree:
    """The whole definition tree. Arguments and errors as in ``definition_trees``.

    >>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=5e-3))
    >>> tree.definitions(1)[0].text
    'water'
    """
    *_, whole = definition_trees(library, vector_recipe, tree_recipe, model=model)
    return whole


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
    by_scan = any(scans_for_clamp(library, vector_recipe, recipe) for recipe in tree_recipes)
    scan_if_missing(library, vector_recipe, model, always=by_scan)
    for prepared in [prepare_tree(library, vector_recipe, recipe, model=model) for recipe in tree_recipes]:
        *_, whole = library.do(prepared.task)
        yield prepared.document(whole)


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
    vector_recipe, tree_recipe = recipes(document.settings)
    vector_recipe.single_feature()
    by_scan = scans_for_clamp(library, vector_recipe, tree_recipe)
    scan_if_missing(library, compared(library, resolved(library, vector_recipe)), model, always=by_scan)
    prepared = prepare_check(library, document, model)
    asked = [answer for answers in library.do(prepared.ask) for answer in answers]
    checked, = library.do(prepared.check)
    return prepared.evidence(checked, asked)


def suggest(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe = TreeRecipe(), *, model: str | None = None
) -> Suggestion:
    """The settings that suit a feature best, of those in ``suggestion.settings_for``.

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
    scan_if_missing(library, vector_recipe, model, always=True)
    prepared = prepare_suggestion(library, vector_recipe, tree_recipe, model)
    controls, asked = (
        [answer for task in tasks for answers in library.do(task) for answer in answers]
        for tasks in ([prepared.controls], prepared.asks)
    )
    return prepared.suggestion(asked, controls)


def components(
    library: Library, sae: str | None = None, *, model: str | None = None, count: int = SHOWN, top: int = TOKENS
) -> list[Component]:
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
    name = model or (library.find(sae).model if sae else None)
    if not name:
        raise UserError("Name a model, or an SAE that tells the model it was trained on.")
    return components_of(library.subject(name), count, top)


def scan_if_missing(
    library: Library,
    recipe: VectorRecipe,
    model: str | None = None,
    *,
    always: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Do the vocabulary scans that must be there before anything is made of a recipe.

    Args:
        always: one is needed whatever the recipe's direction.
        report: told of the progress: tokens done, tokens in all.

    Raises:
        UserError: as ``missing_scan``, or a scan cannot be done.
    """
    while task := missing_scan(library, recipe, model, always=always):
        for done in library.do(task):
            report(done, task.n_tokens)


def prepare_continuation(library: Library, document: DefinitionTree) -> PreparedTree:
    """Make ready the rest of a tree whose growth was stopped, as ``prepare_tree`` does.

    What there is of the tree is not computed again, unless nodes were trimmed off: then it grows anew.

    Raises:
        UserError: the tree is whole, or its recipe cannot be followed.
    """
    if document.complete:
        raise UserError("This tree is whole: there is nothing to go on with. For more nodes, lower its cutoff.")
    vector_recipe, tree_recipe = recipes(document.settings)
    entry = library.find(vector_recipe.sae)
    model = document.settings.get("model")
    if model != entry.model:
        raise UserError(
            f"This tree was grown on {shown(model)}, and {entry.name} belongs to {entry.model}. Only a tree on the "
            "SAE's own model can be grown on here."
        )
    untrimmed = document.effective_cutoff <= tree_recipe.cutoff or len(document.tree) >= tree_recipe.max_nodes
    begun = document if untrimmed and document.least_lift is None and len(document.tree) else None
    return prepare_tree(library, vector_recipe, tree_recipe, begun=begun)


@dataclass(frozen=True)
class PreparedList:
    """A token list that can be made: everything is checked and fetched, nothing has been asked of the model yet."""

    task: LensTask | None  # what the list needs of the model, if anything
    settings: dict  # the recipe with every default resolved, as results carry it
    _sae: Sae | None  # where the scan tells what fires
    _subject: Subject
    _source: FeatureSource | None
    _vector_recipe: VectorRecipe
    _recipe: ListRecipe
    _vector: FeatureVector
    _evidence: bool

    def table(self, logits: np.ndarray | None = None) -> TokenTable:
        """The list.

        Args:
            logits: what the model answers to ``task``.
        """
        recipe, subject = self._recipe, self._subject
        fires = self._source.activations if self._source else None
        values = None if logits is None else torch.from_numpy(logits[0])
        if recipe.measure == "activation":
            values = fires.where(self._source.countable, 0.0)
        listed = token_list(
            subject.space,
            self._vector.v,
            measure=recipe.measure,
            exponent=recipe.exponent,
            top=recipe.top,
            values=values,
            negative=recipe.negative,
            among=torch.from_numpy(subject.words) if recipe.words else None,
        )
        columns = dict(zip(TOKEN_COLUMNS[2:], (
            listed.token_id, listed.score, listed.distance_to_vector, listed.distance_to_centroid,
        ), strict=True))
        columns.setdefault(recipe.measure, listed.value)  # of the score there is a column anyway
        if fires is not None:
            columns["activation"] = fires.numpy()[listed.token_id]
        rows = [
            [rank, subject.token_texts[token_id], token_id, *numbers]
            for rank, (token_id, *numbers) in enumerate(zip(*map(np.ndarray.tolist, columns.values()), strict=True), 1)
        ]
        judged = None
        if self._evidence:
            judged = judge_list(self._sae, subject, self._source, self._vector_recipe, recipe, self._vector)
        return TokenTable((*TOKEN_COLUMNS[:2], *columns), rows, self.settings, _figures(self._vector), judged)


def prepare_list(
    library: Library,
    vector_recipe: VectorRecipe,
    list_recipe: ListRecipe,
    *,
    model: str | None = None,
    evidence: bool = False,
) -> PreparedList:
    """Make ready what a token list takes. Arguments and errors as in ``token_table``.

    A vocabulary scan that is needed must be there (``missing_scan``).
    """
    vector_recipe = resolved(library, vector_recipe)
    by_scan = list_recipe.needs_activations(evidence=evidence)
    sae = source = None
    if by_scan:
        sae, subject, source = source_of(library, vector_recipe, model, scan=True)
        vector = vector_of(source, subject, vector_recipe)
    else:
        subject, vector = recipe_vector(library, vector_recipe, model)
    task, dtype = None, str(subject.space.E.dtype).removeprefix("torch.")
    if list_recipe.measure == "logit_lens":
        if not vector.direction.any():
            raise UserError(
                "The centroid alone has no direction for the logit lens to read. Choose other weights, mix in "
                "principal components, or list by another measure."
            )
        # Without the centroid, which lies among the embeddings and not in the residual stream.
        directions = (vector.scale * vector.direction)[None]
        task = LensTask(model=subject.name, folder=subject.folder, directions=directions.numpy())
        dtype = library.dtype
    settings = _resolved(subject, vector_recipe, vector) | asdict(list_recipe)
    settings |= {"dtype": dtype, "version": __version__}
    return PreparedList(task, settings, sae, subject, source, vector_recipe, list_recipe, vector, evidence)


def token_table(
    library: Library,
    vector_recipe: VectorRecipe,
    list_recipe: ListRecipe = ListRecipe(),
    *,
    model: str | None = None,
    evidence: bool = False,
) -> TokenTable:
    """The token list. A vocabulary scan that is missing is done first; else only logit_lens runs the model.

    >>> table = mt.token_table(library, vector, mt.ListRecipe(measure="logit_lens", words=True, top=5))
    >>> [token for rank, token, *numbers in table.rows][0]
    ' rain'

    Args:
        model: another model than the SAE names: a hub id or a folder.
        evidence: add how strongly each token fires the feature, and judge the list by it; needs the scan.

    Raises:
        UserError: the recipe cannot be followed.
    """
    scan_if_missing(library, vector_recipe, model, always=list_recipe.needs_activations(evidence=evidence))
    prepared = prepare_list(library, vector_recipe, list_recipe, model=model, evidence=evidence)
    if prepared.task is None:
        return prepared.table()
    logits, = library.do(prepared.task)
    return prepared.table(logits)


def _resolved(subject: Subject, recipe: VectorRecipe, vector: FeatureVector) -> dict:
    """The recipe of a vector with every default resolved, as results carry it."""
    return {"model": subject.name} | asdict(recipe) | {"scale": vector.scale, "pca": list(recipe.pca)}


def _figures(vector: FeatureVector) -> dict:
    return {
        "norm": vector.norm,
        "distance_from_centroid": vector.distance_from_centroid,
        "mean_token_distance": vector.mean_token_distance,
    }


def _figures_of_tree(vector: FeatureVector, task: GrowthTask) -> dict:
    """The vector's figures; of an injected one its norm in mean residual norms, as it does not lie among the
    embeddings; and the typical maximum of a clamped feature."""
    found, wanted = _figures(vector), task.interventions
    if wanted and wanted.injection:
        norm = wanted.injection.scale * float(vector.direction.norm())
        found |= {"norm": norm, "distance_from_centroid": None}
    if wanted and wanted.clamp:
        found["typical_maximum"] = wanted.clamp.typical_maximum
    return found
