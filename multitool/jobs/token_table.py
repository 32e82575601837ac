"""A token list as a result: the table with its recipe."""

from dataclasses import dataclass

from multitool.evidence.verdicts import ListEvidence, WrittenEvidence
from multitool.recipes.captions import source_told
from multitool.text import csv_table, html_table

TOKEN_COLUMNS = ("rank", "token", "token_id", "score", "distance_to_vector", "distance_to_centroid")


@dataclass(frozen=True)
class TokenTable:
    """A token list with its recipe. A notebook shows it as a table.

    >>> table = mt.token_table(library, vector, mt.ListRecipe(top=3))
    >>> table.columns
    ('rank', 'token', 'token_id', 'score', 'distance_to_vector', 'distance_to_centroid')
    >>> print(table.to_csv().splitlines()[-4])
    "rank","token","token_id","score","distance_to_vector","distance_to_centroid"
    """

    columns: tuple[str, ...]  # TOKEN_COLUMNS; that of a measure; activation after a scan, change after a push
    rows: list[list]  # one list per token, in the order of ``columns``
    settings: dict
    vector: dict
    evidence: ListEvidence | WrittenEvidence | None = None

    def _repr_html_(self) -> str:
        of = f"{source_told(self.settings)}, by {self.settings['measure']}"
        return html_table(of + (f". {self.evidence.sentence}" if self.evidence else ""), self.columns, self.rows)

    def to_csv(self) -> str:
        """Comment lines with the recipe, a header line, and one line per token; tokens are exact, numbers too."""
        told = {name: value for name, value in self.to_dict().items() if name != "tokens"}
        return csv_table(self.columns, self.rows, told.pop("settings") | told)

    def to_dict(self) -> dict:
        """For JSON."""
        found = {
            "schema": "sae-multitool/token-list/1",
            "settings": self.settings,
            "vector": self.vector,
            "tokens": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }
        return found | ({"evidence": self.evidence.to_dict()} if self.evidence else {})
