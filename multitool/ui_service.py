"""What the page and the API ask for: recipes in; results out, and words in between on what is being waited for."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Lock

from multitool import engine
from multitool.document import DefinitionTree
from multitool.engine import PreparedTree, TokenTable
from multitool.errors import UserError
from multitool.library import Library
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.settings import Settings
from multitool.ui_gpu import Grower

_TREES_KEPT = 100
_POLL_SECONDS = 0.3


class Service:
    """Answers requests of visitors within the operator's limits.

    Args:
        library: where models and SAEs come from.
        settings: the operator's limits.
        grow: grows a tree on the machine that has the model.
    """

    def __init__(self, library: Library, settings: Settings, grow: Grower):
        self.library = library
        self.settings = settings
        self._grow = grow
        self._loading = ThreadPoolExecutor(max_workers=16, thread_name_prefix="loading")
        self._trees: OrderedDict[tuple, DefinitionTree] = OrderedDict()  # whole ones by their recipes
        self._lock = Lock()

    def trees(self, vector: VectorRecipe, tree: TreeRecipe) -> Iterator[str | DefinitionTree]:
        """The tree as it grows; before that, in words, what it waits for. The same request again costs nothing.

        The last one may be incomplete: its time was up. ``continued`` goes on from there.

        Raises:
            UserError: it cannot be done, or not here.
        """
        self._check(tree)
        key = (vector, tree)
        with self._lock:
            known = self._trees.get(key)
        if known:
            yield known
            return
        prepared = yield from self._waiting(vector.sae, engine.prepare_tree, vector, tree)
        for answer in self._grown(prepared):
            if isinstance(answer, DefinitionTree) and answer.complete:
                self._keep(key, answer)
            yield answer

    def continued(self, document: DefinitionTree) -> Iterator[str | DefinitionTree]:
        """The rest of a tree whose growth was stopped. Answers and errors as in ``trees``.

        Nothing of it is kept for others: what it goes on from may be anybody's file.
        """
        vector, tree = recipes(document.settings)
        self._check(tree)
        yield from self._grown((yield from self._waiting(vector.sae, engine.prepare_continuation, document)))

    def table(self, vector: VectorRecipe, recipe: ListRecipe) -> Iterator[str | TokenTable]:
        """The token list; before it, in words, what it waits for. Raises UserError if it cannot be made."""
        yield (yield from self._waiting(vector.sae, engine.token_table, vector, recipe))

    def _grown(self, prepared: PreparedTree) -> Iterator[str | DefinitionTree]:
        yield "Waiting for a GPU …" if self.settings.zero_gpu else "Starting …"
        # Gradio can stop a request only after its first answer; before, it would go on to its end for nobody.
        yield prepared.begun
        for growth in self._grow(prepared.task):
            yield prepared.document(growth)

    def _keep(self, key: tuple, document: DefinitionTree) -> None:
        with self._lock:
            self._trees[key] = document
            if len(self._trees) > _TREES_KEPT:
                self._trees.popitem(last=False)

    def _waiting(self, sae: str, work: Callable, *recipes):
        """What ``work`` makes of the recipes with the library, in a thread of its own; until then, in words, what it
        waits for.

        Who leaves does not stop the work: others may wait for the same download.
        """
        entry = self.library.find(sae)
        future = self._loading.submit(work, self.library, *recipes)
        while not wait([future], timeout=_POLL_SECONDS).done:
            yield self.library.progress(entry) or f"Loading {entry.name} and {entry.model} …"
        return future.result()

    def _check(self, tree: TreeRecipe) -> None:
        if tree.max_nodes > self.settings.max_nodes:
            raise UserError(f"max_nodes is {tree.max_nodes}; here it can be at most {self.settings.max_nodes}.")
        if len(tree.prompt) > self.settings.max_prompt:
            raise UserError(
                f"The prompt has {len(tree.prompt)} characters; here it can have at most {self.settings.max_prompt}."
            )
