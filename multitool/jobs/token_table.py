"""A token list as a result: the table with its recipe."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multitool.evidence.verdicts import ListEvidence, WrittenEvidence
from multitool.recipes.captions import readable, source_told
from multitool.text import csv_table, data_frame, html_table

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = 5  # tokens, where there is one line for the list

TOKEN_COLUMNS = ("rank", "token", "token_id", "score", "distance_to_vector", "distance_to_centroid")


@dataclass(frozen=True)
class TokenTable:
    """A token list with its recipe. A notebook shows it as a table.

    >>> table = mt.token_table(library, vector, mt.ListRecipe(top=3))
    >>> table.columns
    ('rank', 'token', 'token_id', 'score', 'distance_to_vector', 'distance_to_centroid')
    >>> print(table.to_csv().splitlines()[-4])
    "rank","token","token_id","score","distance_to_vector","distance_to_centroid"
    >>> table.to_pandas()["token"].tolist()
    [' Rain', ' rains', 'Rain']
    """

    columns: tuple[str, ...]  # TOKEN_COLUMNS; that of a measure; activation after a scan, change after a push
    rows: list[list]  # one list per token, in the order of ``columns``
    settings: dict
    vector: dict
    evidence: ListEvidence | WrittenEvidence | None = None

    def __repr__(self) -> str:
        tokens = [repr(row[self.columns.index("token")]) for row in self.rows[:_SHOWN]]
        more = ["…"] * (len(self.rows) > _SHOWN)
        return f"TokenTable({self._source}: {len(self.rows):,} tokens, {', '.join(tokens + more)})"

    @property
    def _source(self) -> str:
        return f"{source_told(self.settings)}, by {self.settings['measure']}"

    def _repr_html_(self) -> str:
        of = self._source
        return html_table(of + (f". {self.evidence.sentence}" if self.evidence else ""), self.columns, self.rows)

    def to_csv(self) -> str:
        """Comment lines with the recipe, a header line, and one line per token; tokens are exact, numbers too."""
        told = {name: value for name, value in self.to_dict().items() if name not in ("tokens", "settings")}
        return csv_table(self.columns, self.rows, readable(self.settings) | told)

    def to_pandas(self) -> "DataFrame":
        """One row per token."""
        return data_frame(self.columns, self.rows)

    def to_dict(self) -> dict:
        """For JSON."""
        found = {
            "schema": "sae-multitool/token-list/1",
            "settings": self.settings,
            "vector": self.vector,
            "tokens": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }
        return found | ({"evidence": self.evidence.to_dict()} if self.evidence else {})
