"""Next tokens without a model: a table that answers as one would."""

from itertools import product

import numpy as np

from multitool.trees.growth import Next


class WrittenOut:
    """Next tokens as a table: path → [(token id, probability), …], and a record of what was asked."""

    def __init__(self, table: dict, top_k: int = 1000):
        self.table = table
        self.top_k = top_k
        self.asked: list[tuple] = []
        self.levels = 0
        self.entropies = None
        self._paths: list[tuple] = []

    def start(self, paths=None, least=None):
        self.entropies = np.array([1.5]) if paths is None else None
        return self._answer([()] if paths is None else [tuple(path.tolist()) for path in paths], least)

    def advance(self, rows, token_ids, least=None):
        assert (np.diff(rows) >= 0).all(), "rows must rise"
        assert len(rows), "nothing to ask"
        return self._answer([(*self._paths[row], int(t)) for row, t in zip(rows, token_ids, strict=True)], least)

    def _answer(self, paths, least):
        self.levels += 1
        self.asked += paths
        self._paths = paths
        wanted = [[(t, p) for t, p in self.table[path] if p >= limit] for path, limit in zip(paths, least, strict=True)]
        found = [(row, t, p) for row, answer in enumerate(wanted) for t, p in answer[: self.top_k]]
        row, token_id, prob = (np.array(column) for column in zip(*found, strict=True)) if found else [np.empty(0)] * 3
        beyond = np.array([sum(p for _, p in answer[self.top_k :]) for answer in wanted])
        return Next(row.astype(np.int64), token_id.astype(np.int64), prob.astype(np.float32), beyond)


def random_table(rng: np.random.Generator, depth: int = 5, top_k: int = 3) -> dict:
    """Next tokens of every path of tokens 0 to 4; some tables have a dominant token and so long thin trees."""
    table = {}
    peak = rng.choice([1.0, 3.0])
    for length in range(depth):
        for path in product(range(5), repeat=length):
            probs = np.sort(rng.dirichlet(np.ones(5)) ** peak)[::-1]
            probs = (probs / probs.sum()).astype(np.float32)[:top_k]
            table[path] = list(zip(rng.permutation(5)[:top_k].tolist(), probs.tolist(), strict=True))
    return table
