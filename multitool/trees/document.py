"""A definition tree together with its recipe, and its JSON both ways.

The format is ``sae-multitool/definition-tree/1``. What one run wrote, another reads; a file from elsewhere is
checked before anything is done with it.
"""

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
from pydantic import Field

from multitool.errors import UserError, is_number, shown
from multitool.recipes.captions import readable, source_told
from multitool.recipes.fields import Valid, check
from multitool.recipes.own_vectors import LARGEST, LONGEST_VECTOR
from multitool.recipes.recipe import MAX_DEPTH_LIMIT, SPARING, check_cutoff, closing_quote
from multitool.text import csv_table, data_frame, html_table, is_text, percent
from multitool.trees.tree import ROOT, Coverage, Definition, Tree, coverage, definitions, lifted, trim

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = "sae-multitool/definition-tree/1"
_LONGEST_TOKEN = 1_000
_LONGEST_SETTING = 10_000
_MOST_SETTINGS = 200  # of each section
_LONGEST_KEY = 100
_MOST_TEXTS = 100  # in a list
_MOST_NUMBERS = 1_000  # in a list, but of a vector of one's own
# Within these, whatever is reckoned, written or drawn from a number stays one.
_MOST_NUMBER = LARGEST
_MOST_LIFT = 1_000  # nats
_MOST_ACTIVATION = 1e9
_DEFINITIONS_SHOWN = 15  # in a notebook
_DEFINITIONS_IN_LINE = 3
_LIFTS = ("lift_centroid", "lift_random")
_BEYOND = "beyond_top_k"
UNFINISHED = "Unfinished: these go on beyond the tree"  # heads a list of beginnings
_MUCH = 0.5  # of the probability


@dataclass(frozen=True)
class DefinitionTree:
    """A tree, how it was made, and what became of it. A notebook shows its definitions as a table.

    >>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=5e-3))
    >>> for definition in tree.definitions(3):
    ...     print(f"{definition.probability:.0%} {definition.text}{'' if definition.complete else ' …'}")
    1% water
    4% A …
    1% water that …
    >>> tree.settings["weights"], tree.result["nodes"]
    ('encoder', 14)
    >>> smaller = tree.trimmed(1e-2)
    >>> tree.to_pandas()["text"].tolist()[:2]
    ['water', 'A']
    """

    tree: Tree = field(repr=False)
    settings: dict  # the recipe, every value resolved
    vector: dict  # norm, distance_from_centroid, mean_token_distance
    effective_cutoff: float  # the cutoff that gives this tree
    complete: bool  # False while it grows, or when growth was cut off
    seconds: float  # of growth
    depth_grown: int = field(default=0, compare=False)  # levels grown so far
    least_lift: float | None = None  # nats; branches below it were left out
    first_token_entropy: float | None = None  # nats, over the whole vocabulary; older files lack it
    evidence: dict | None = None  # figures, verdict, sentence, as evidence.TreeEvidence.to_dict gives them

    def __repr__(self) -> str:
        first = [f"{percent(found.probability)} {found.text!r}" for found in self.definitions(_DEFINITIONS_IN_LINE)]
        return f"DefinitionTree({self._source}; {', '.join(first)})"

    @property
    def _source(self) -> str:
        return f"{source_told(self.settings)}: {len(self.tree)} nodes at cutoff {self.effective_cutoff:.3g}"

    def _repr_html_(self) -> str:
        of = self._source
        complete, unfinished = self.most_probable(_DEFINITIONS_SHOWN)
        rows = [[percent(found.probability), found.text] for found in complete]
        rows += [["", UNFINISHED]] * bool(unfinished)
        rows += [[percent(found.probability), f"{found.text} …"] for found in unfinished]
        said = f". {self.evidence.get('sentence')}" if self.evidence else ""
        return html_table(of + said, ("probability", "definition"), rows)

    @property
    def closing_quote(self) -> str | None:
        """What ends a definition in this tree's prompt."""
        end = "answer" if self.settings.get("chat") else "prompt"  # where the model goes on; old files know no chat
        return closing_quote(str(self.settings.get(end, "")))

    @property
    def asked(self) -> str:
        """What the model was asked: the prompt, or of a chat what its two sides say."""
        prompt, answer = (str(self.settings.get(name, "")) for name in ("prompt", "answer"))
        return f"user: {prompt} – assistant: {answer}" if self.settings.get("chat") else prompt

    def definitions(self, n: int | None = None) -> list[Definition]:
        """The most probable definitions, complete ones first."""
        return definitions(self.tree, n, self.closing_quote)

    def most_probable(self, n: int) -> tuple[list[Definition], list[Definition]]:
        """The ``n`` most probable definitions that come to their end, and the ``n`` most probable beginnings."""
        return _parted(self.definitions(), n)

    def most_lifted(self, n: int) -> tuple[list[Definition], list[Definition]]:
        """Of a checked tree the same by the lift per token: by the whole lift they would go by their length, as each
        token of the feature's own adds to it."""
        lift = self.tree.lift_per_token
        assert lift is not None
        return _parted(sorted(self.definitions(), key=lambda found: -lift[found.node]), n)

    def definition_rows(self, found: list[Definition] | None = None) -> tuple[tuple[str, ...], list[list]]:
        """Definitions as a table: their columns, and a row each.

        Columns are its text and probability, whether it comes to its end within the tree, and of a checked
        tree its lift per token (nats) and the feature's strongest activation on it (nan where it was not read).

        Args:
            found: those; None for all, complete ones first, by falling probability.
        """
        found = self.definitions() if found is None else found
        columns: tuple[str, ...] = ("text", "probability", "complete")
        rows: list[list] = [[one.text, one.probability, one.complete] for one in found]
        lift, activation = self.tree.lift_per_token, self.tree.activation
        if lift is not None and activation is not None:
            columns += ("lift_per_token", "activation")
            for row, one in zip(rows, found, strict=True):
                row += [float(lift[one.node]), float(activation[one.node])]
        return columns, rows

    def to_pandas(self) -> "DataFrame":
        """The definitions as ``definition_rows`` has them."""
        return data_frame(*self.definition_rows())

    def to_csv(self) -> str:
        """The definitions as a CSV file, with the recipe in comment lines at its head; numbers are exact."""
        told = {"schema": SCHEMA, "vector": self.vector, "result": self.result}
        evidence = {"evidence": self.evidence} if self.evidence else {}
        return csv_table(*self.definition_rows(), readable(self.settings) | told | evidence)

    def trimmed(self, cutoff: float) -> "DefinitionTree":
        """The same with the nodes below ``cutoff`` left out; the recipe keeps the cutoff of the growth.

        Raises:
            UserError: the cutoff is not between 0 and 1.
        """
        cutoff = check_cutoff(cutoff)
        return replace(self, tree=trim(self.tree, cutoff), effective_cutoff=max(self.effective_cutoff, cutoff))

    def lifted(self, least: float) -> "DefinitionTree":
        """A checked tree without the branches whose lift is nowhere at least ``least`` nats.

        Raises:
            UserError: the lifts are not known, or ``least`` is no number.
        """
        least = check(least, "lift", Annotated[
            float, Field(ge=-_MOST_LIFT, le=_MOST_LIFT), Valid("it must be a number of nats, e.g. 1")
        ])
        if self.tree.lifts is None:
            raise UserError("This tree has not been checked, so its nodes' lifts are not known. Check it first.")
        known = least if self.least_lift is None else max(least, self.least_lift)
        return replace(self, tree=lifted(self.tree, least), least_lift=known)

    @property
    def shares(self) -> Coverage:
        """Where the model's answers go: into the tree, or past it and why."""
        return coverage(self.tree)

    @property
    def caution(self) -> str:
        """A sentence where ``top_k`` keeps out more of the probability than all else; else empty."""
        beyond, top_k = self.shares.beyond, self.settings.get("top_k")
        if not (beyond and beyond > _MUCH and is_number(top_k) and top_k > 0):
            return ""
        return (
            f"{percent(beyond)} of the probability is cut by top_k: more than the {top_k:g} most probable next tokens "
            "of a path reach the cutoff."
        )

    @property
    def result(self) -> dict:
        """What came of the growth, as the schema has it."""
        shares = self.shares
        optional = {"least_lift": self.least_lift, "first_token_entropy": self.first_token_entropy}
        if shares.beyond is not None:
            optional |= {"beyond_top_k": shares.beyond, "below_cutoff": shares.below}
        return {
            "nodes": len(self.tree),
            "leaves": int(self.tree.is_leaf.sum()),
            "depth": int(self.tree.depth.max(initial=0)),
            "effective_cutoff": self.effective_cutoff,
            "complete": self.complete,
            "seconds": round(self.seconds, 3),
            "in_tree": shares.in_tree,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def to_dict(self) -> dict:
        """The JSON object of the schema."""
        found = {
            "schema": SCHEMA,
            "settings": self.settings,
            "vector": self.vector,
            "result": self.result,
            "tree": _nested(self.tree),
        }
        return found if self.evidence is None else found | {"evidence": self.evidence}

    def to_json(self) -> str:
        """What ``read_tree`` reads, and the page opens."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


def _parted(found: list[Definition], n: int) -> tuple[list[Definition], list[Definition]]:
    """The first ``n`` complete ones, and the first ``n`` others."""
    complete, others = ([one for one in found if one.complete == whole][:n] for whole in (True, False))
    return complete, others


def _nested(tree: Tree) -> dict:
    root: dict = {"token": "", "token_id": None, "prob": 1.0, "cumulative_prob": 1.0, "children": []}
    nodes: list[dict] = []
    if tree.beyond is not None:
        root[_BEYOND] = float(tree.beyond[ROOT])
    for i, parent in enumerate(tree.parent):
        node: dict = {
            "token_id": int(tree.token_id[i]),
            "token": tree.token[i],
            "prob": float(tree.prob[i]),
            "cumulative_prob": float(tree.cumulative_prob[i]),
            "children": [],
        }
        if tree.end[i]:
            node["end"] = True
        if tree.beyond is not None and tree.beyond[i] > 0:
            node[_BEYOND] = float(tree.beyond[i])
        if tree.lifts is not None:
            node |= dict(zip(_LIFTS, tree.lifts[i].tolist(), strict=True))
        if tree.activation is not None and not np.isnan(tree.activation[i]):
            node["activation"] = float(tree.activation[i])
        (root if parent == ROOT else nodes[parent])["children"].append(node)
        nodes.append(node)
    return root


def read_tree(source: str | bytes | dict) -> DefinitionTree:
    """A definition tree from its JSON (text or object), of any size: who reads others' files bounds what comes in.

    >>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=2e-2))
    >>> mt.read_tree(tree.to_json()).definitions() == tree.definitions()
    True

    Raises:
        UserError: it is no JSON, or not a tree of this schema; the message names the first thing that is wrong.
    """
    data = source
    if not isinstance(source, dict):
        try:
            data = json.loads(source)
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"This is not a tree JSON: it cannot be read as JSON ({error}). Use a file that this tool saved."
            ) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise UserError(
            f"This is not a tree JSON: its schema is {shown(found)}, not {SCHEMA!r}. Use a file that this tool "
            "saved."
        )
    settings, vector, result = (_section(data, name) for name in ("settings", "vector", "result"))
    if settings.get("steer_at") in SPARING:
        settings = {"steer_sinks": True} | settings  # as all trees grew before there was a choice
    evidence = _section(data, "evidence", texts=True) if "evidence" in data else None
    complete = result.get("complete")
    if not isinstance(complete, bool):
        _foreign("result.complete", complete, "true or false")
    return DefinitionTree(
        tree=_flat(data.get("tree")),
        settings=settings,
        vector=vector,
        effective_cutoff=_above_zero("result.effective_cutoff", result.get("effective_cutoff")),
        complete=complete,
        seconds=_number("result.seconds", result.get("seconds")),
        evidence=evidence,
        least_lift=_number("result.least_lift", result["least_lift"], _MOST_LIFT) if "least_lift" in result else None,
        first_token_entropy=_entropy(result["first_token_entropy"]) if "first_token_entropy" in result else None,
    )


def _section(data: dict, name: str, *, texts: bool = False) -> dict:
    """A flat object of plain values; lists of numbers are allowed (pca).

    Args:
        texts: so are short lists of texts (the judged definitions).
    """
    section = data.get(name)
    if not isinstance(section, dict) or len(section) > _MOST_SETTINGS:
        _foreign(name, section, f"an object of at most {_MOST_SETTINGS} values")
    for key, value in section.items():
        if not isinstance(key, str) or not _is_text(key, _LONGEST_KEY):
            _foreign(f"{name}.{shown(key)[:40]}", value, f"named by a text of at most {_LONGEST_KEY} characters")
        if isinstance(value, list):
            most = LONGEST_VECTOR if key == "vector" else _MOST_NUMBERS
            if not (_are_numbers(value, most) or texts and _are_texts(value)):
                valid = f"a list of at most {most:,} numbers within ±{_MOST_NUMBER:g}"
                _foreign(f"{name}.{key}", value, valid + texts * f" or of at most {_MOST_TEXTS} texts")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            _number(f"{name}.{key}", value)
        elif isinstance(value, str) and not _is_text(value, _LONGEST_SETTING):
            _foreign(f"{name}.{key}", value, f"at most {_LONGEST_SETTING} characters")
        elif not (value is None or isinstance(value, (str, int))):
            _foreign(f"{name}.{key}", value, "a plain value")
    return section


def _flat(root) -> Tree:
    """Columns from nested nodes, level by level (no recursion: the nesting comes from outside)."""
    if not isinstance(root, dict):
        _foreign("tree", root, "an object")
    rows: list[tuple] = []  # parent, token_id, token, prob, cumulative_prob, end, lifts, activation, beyond
    waiting = [(ROOT, 1.0, root.get("children"), "tree", 0)]
    for parent, reached, children, where, depth in waiting:
        if depth > MAX_DEPTH_LIMIT:
            raise UserError(f"This tree JSON is damaged: {where} lies deeper than {MAX_DEPTH_LIMIT} tokens.")
        if not isinstance(children, list):
            _foreign(f"{where}.children", children, "a list")
        for child in children:
            name = f"node {len(rows)}"
            rows.append(_row(parent, reached, child, name))
            waiting.append((len(rows) - 1, rows[-1][4], child.get("children"), name, depth + 1))
    columns = zip(*rows, strict=True) if rows else ((),) * 9
    parents, token_id, token, prob, cumulative, end, lifts, activation, beyond = columns
    checked = bool(rows) and None not in lifts
    known = _BEYOND in root  # files that know it tell it of the prompt in any case
    return Tree(
        parent=np.array(parents, dtype=np.int64),
        token_id=np.array(token_id, dtype=np.int64),
        token=token,
        prob=np.array(prob, dtype=np.float64),
        cumulative_prob=np.array(cumulative, dtype=np.float64),
        end=np.array(end, dtype=bool),
        beyond=np.array([*beyond, _beyond(root, "tree")]) if known else None,
        lifts=np.array(lifts, dtype=np.float64) if checked else None,
        activation=np.array(activation, dtype=np.float64) if checked else None,
    )


def _row(parent: int, reached: float, node, name: str) -> tuple:
    if not isinstance(node, dict):
        _foreign(name, node, "an object")
    token, token_id, end = node.get("token"), node.get("token_id"), node.get("end", False)
    if not isinstance(token, str) or not _is_text(token, _LONGEST_TOKEN):
        _foreign(f"{name}: token", token, f"text of at most {_LONGEST_TOKEN} characters")
    if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < 2**31:
        _foreign(f"{name}: token_id", token_id, "a whole number from 0 up")
    if not isinstance(end, bool):
        _foreign(f"{name}: end", end, "true or false")
    prob = _above_zero(f"{name}: prob", node.get("prob"))
    cumulative = _above_zero(f"{name}: cumulative_prob", node.get("cumulative_prob"))
    if cumulative > reached:
        _foreign(f"{name}: cumulative_prob", cumulative, f"at most its parent's {reached}")
    lifts = [_number(f"{name}: {lift}", node[lift], _MOST_LIFT) for lift in _LIFTS if lift in node]
    activation = np.nan
    if "activation" in node:
        activation = _number(f"{name}: activation", node["activation"], _MOST_ACTIVATION)
    both = lifts if len(lifts) == 2 else None
    return parent, token_id, token, prob, cumulative, end, both, activation, _beyond(node, name)


def _beyond(node: dict, name: str) -> float:
    return _probability(f"{name}: {_BEYOND}", node[_BEYOND]) if _BEYOND in node else 0.0


def _probability(where: str, value) -> float:
    if not is_number(value) or not 0 <= value <= 1:
        _foreign(where, value, "a number from 0 to 1")
    return float(value)


def _above_zero(where: str, value) -> float:
    if not is_number(value) or not 0 < value <= 1:
        _foreign(where, value, "a number above 0 and at most 1")
    return float(value)


def _number(where: str, value, most: float = _MOST_NUMBER) -> float:
    if not is_number(value) or abs(value) > most:
        _foreign(where, value, f"a number within ±{most:g}")
    return float(value)


def _entropy(value) -> float:
    entropy = _number("result.first_token_entropy", value)
    return entropy if entropy >= 0 else _foreign("result.first_token_entropy", value, "a number from 0 up")


def _is_text(value: str, longest: int) -> bool:
    """Of at most that length, and text that can be written: half a surrogate pair cannot."""
    return len(value) <= longest and is_text(value)


def _are_numbers(values: list, most: int) -> bool:
    return len(values) <= most and all(is_number(item) and abs(item) <= _MOST_NUMBER for item in values)


def _are_texts(values: list) -> bool:
    texts = all(isinstance(value, str) and _is_text(value, _LONGEST_SETTING) for value in values)
    return texts and len(values) <= _MOST_TEXTS


def _foreign(where: str, value, valid: str) -> NoReturn:
    raise UserError(f"This tree JSON is damaged: {where[:80]} is {shown(value)}; it must be {valid}.")


def judged_definitions(evidence: dict | None) -> list[tuple[str, float]]:
    """The definitions that the verdict on a tree speaks of, and how strongly each fires the feature.

    Args:
        evidence: as ``TreeEvidence.to_dict`` gives it, or as somebody's file has it: what is none is left out.
    """
    texts, activations = ((evidence or {}).get(f"judged_{name}") for name in ("texts", "activations"))
    if not isinstance(texts, (list, tuple)) or not isinstance(activations, (list, tuple)):
        return []
    pairs = zip(texts, activations, strict=False)
    return [(text, float(fires)) for text, fires in pairs if isinstance(text, str) and is_number(fires)]


def feature_maximum(evidence: dict | None) -> float | None:
    """How strongly the feature fires where it fires most, by a tree's evidence; None if that does not tell."""
    most = (evidence or {}).get("feature_maximum")
    return float(most) if is_number(most) and most > 0 else None
