"""What the server keeps of its answers: trees that a caller names by an id, and results of calls for the same call."""

import contextlib
import hashlib
import json
import secrets
import zlib
from collections import Counter
from collections.abc import Iterator
from threading import Lock

from cachetools import LRUCache

from multitool.errors import UserError, shown
from multitool.page.values import MOST_JSON
from multitool.trees.document import SCHEMA, DefinitionTree, read_tree

_MOST_NAMES = 10_000
_MOST_BYTES = 64_000_000  # a tree of 5,000 nodes takes a hundred thousand
_TREE, _CALL = "tree-", "call-"
_VALID = "give the id that came with a tree, or the tree's whole JSON, which detail full gives, as an object or as text"


class Kept:
    """Texts by name, compressed: so many names and bytes, and what has not been used for longest goes first."""

    def __init__(self, most_names: int = _MOST_NAMES, most_bytes: int = _MOST_BYTES):
        self._lock = Lock()
        self._digests: LRUCache = LRUCache(most_names)  # by name; the same text is kept once
        self._texts: LRUCache = LRUCache(most_bytes, getsizeof=len)  # by digest
        self._turns: dict[str, Lock] = {}  # by name: held by the one who makes the text
        self._waiting: Counter[str] = Counter()  # for them, or having them

    def keep(self, name: str, text: str) -> None:
        """Keep a text, as long as there is room."""
        packed = zlib.compress(text.encode(errors="surrogatepass"), 1)
        digest = hashlib.sha256(packed).digest()
        with self._lock:
            if len(packed) <= self._texts.maxsize:
                self._digests[name], self._texts[digest] = digest, packed

    def text(self, name: str) -> str | None:
        """The text of that name; None if it is not here, or no more."""
        with self._lock:
            packed = self._texts.get(self._digests.get(name))
        return None if packed is None else zlib.decompress(packed).decode(errors="surrogatepass")

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[Lock]:
        """The lock of whoever makes the text of that name, so that it is made once."""
        with self._lock:
            turn = self._turns.setdefault(name, Lock())
            self._waiting[name] += 1
        try:
            yield turn
        finally:
            with self._lock:
                self._waiting[name] -= 1
                if not self._waiting[name]:
                    del self._waiting[name], self._turns[name]

    def keep_tree(self, document: DefinitionTree) -> str:
        """Keep a tree for its caller; the id, which nobody else can guess."""
        name = _TREE + secrets.token_urlsafe(16)
        self.keep(name, document.to_json())
        return name

    def tree(self, given: dict | str) -> DefinitionTree:
        """The tree that a caller means: by its id, also in the summary that told it, or as its JSON, object or text.

        Raises:
            UserError: it is none of these, or not here any more.
        """
        if isinstance(given, str) and given.lstrip().startswith("{"):
            given = _parsed(given)
        if isinstance(given, dict) and given.get("schema") != SCHEMA and isinstance(given.get("id"), str):
            given = given["id"]
        if isinstance(given, dict):
            return read_tree(given)
        if not isinstance(given, str) or not given.strip().startswith(_TREE):
            raise UserError(f"tree is {shown(given)}; {_VALID}.")
        text = self.text(given.strip())
        if text is None:
            raise UserError(
                f"There is no tree {shown(given)} here: trees are kept for a while, and not when the server starts "
                "anew. Grow it again, or send its whole JSON."
            )
        return read_tree(text)


def call_name(tool: str, given: dict) -> str:
    """Under which name the result of a call is kept: the same for the same call, of trees for the same content."""
    try:
        asked = json.dumps([tool, given], sort_keys=True, default=_content)
    except (TypeError, ValueError, RecursionError):  # a number of thousands of digits, say, which will be refused
        asked = secrets.token_urlsafe()
    return _CALL + hashlib.sha256(asked.encode()).hexdigest()


def _content(value) -> str:
    if not isinstance(value, DefinitionTree):
        raise TypeError
    return value.to_json()


def _parsed(text: str):
    if len(text) > MOST_JSON:
        raise UserError(
            f"The tree has {len(text):,} characters; as text it can have at most {MOST_JSON:,}. Trim it first."
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"tree is a text that cannot be read as JSON ({error}); {_VALID}.") from error
