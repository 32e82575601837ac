"""What the study measured, feature by feature, kept on disk as it comes: so a run that was cut off goes on."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from multitool.evidence.statistics import mean_with_interval

Interval = tuple[float, float, float]  # a mean, and the ends of its 95 % interval
NOT_KNOWN = (math.nan,) * 3
# Times the usual scale, for lists: a few hundredths matter there, and at the smallest a tree says nothing of its own.
LIST_SCALES = (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 1.0)
CHOSEN_BY = {"lists": "list AP", "trees": "found"}  # the measure by which a setting for them is chosen
# What bounds the figures: no settings to choose from, as they are made from what judges them.
ONE_TOKEN, _SEPARATED = "the strongest token’s embedding", "judged tokens separated"


class Records:
    """The figures of one SAE: by the part of the study, the setting, and the feature. A line of the file for each.

    Args:
        path: the file, or where it will be.
        head: what is known of the SAE and of the run before anything is measured; None reads what is there.

    Raises:
        ValueError: the file is of another run, whose figures would mix with these.
    """

    def __init__(self, path: Path, head: dict | None = None):
        self._path = path
        self._found: dict[tuple[str, str], dict[int, dict | None]] = {}
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        whole = lines[:-1]  # what stands behind the last line's end was cut off
        known = json.loads(whole[0]) if whole else head
        if known is None or head is not None and known != head:
            raise ValueError(f"{path} is of another run: {known}, not {head}. Remove it, or name another --work.")
        self.head: dict = known
        for line in whole[1:]:
            part, setting, feature, figures = json.loads(line)
            self._found.setdefault((part, setting), {})[feature] = figures
        if head is not None:
            text = b"\n".join(whole or [json.dumps(head).encode()]) + b"\n"
            if lines[-1:] != [b""]:
                path.write_bytes(text)

    def add(self, part: str, rows: Iterable[tuple[str, int, dict | None]]) -> None:
        """Settings, features and their figures; None where a setting gives a feature no vector."""
        with self._path.open("a", encoding="utf-8") as file:
            for setting, feature, figures in rows:
                self._found.setdefault((part, setting), {})[feature] = figures
                file.write(json.dumps([part, setting, feature, figures], ensure_ascii=False) + "\n")

    def has(self, part: str, setting: str, feature: int) -> bool:
        return feature in self._found.get((part, setting), {})

    def settings(self, part: str) -> list[str]:
        """Those with figures, in the order in which they came."""
        return [setting for found, setting in self._found if found == part]

    def figures(self, part: str, setting: str) -> dict[int, dict[str, Any]]:
        """By feature; those without a vector left out."""
        found = self._found.get((part, setting), {})
        return {feature: figures for feature, figures in found.items() if figures is not None}

    def values(self, part: str, setting: str, measure: str) -> dict[int, float]:
        """A measure by feature, where it is known."""
        found = {feature: figures.get(measure) for feature, figures in self.figures(part, setting).items()}
        return {feature: float(value) for feature, value in found.items() if value is not None}

    def mean(self, part: str, setting: str, measure: str, among: Iterable[int] | None = None) -> Interval:
        """A measure's mean and interval over the features, or over some of them."""
        values = self.values(part, setting, measure)
        chosen = [value for feature, value in values.items() if among is None or feature in among]
        return mean_with_interval(chosen) if chosen else NOT_KNOWN

    def difference(self, part: str, one: str, other: str, measure: str, other_part: str | None = None) -> Interval:
        """How much larger a measure is by one setting than by another, over the features that have both."""
        ones, others = self.values(part, one, measure), self.values(other_part or part, other, measure)
        values = [ones[feature] - others[feature] for feature in ones if feature in others]
        return mean_with_interval(values) if values else NOT_KNOWN

    def best(self, part: str, measure: str, among: Sequence[str]) -> str:
        """The setting with the largest mean; ties go to the first. Features without a vector by it count 0."""
        def mean(setting: str) -> float:
            n = len(self._found.get((part, setting), {}))
            return sum(self.values(part, setting, measure).values()) / n if n else -math.inf

        return max(among, key=mean)


def separated(scale: float) -> str:
    """How a direction is named that is made from the judged tokens."""
    return f"{_SEPARATED}, {scale:g} × the usual scale"


def settings_chosen_from(records: Records, what: str) -> list[str]:
    """The settings that the choosing features tried, without chance and bounds; ``what``: lists or trees."""
    return [name for name in records.settings(f"choose {what}") if not name.startswith(("random", _SEPARATED))]


def chosen(records: Records, what: str) -> str:
    """The setting that the choosing features like best."""
    return records.best(f"choose {what}", CHOSEN_BY[what], settings_chosen_from(records, what))


def bound(records: Records) -> str:
    """The best of the directions that are made from the judged tokens."""
    bounds = [name for name in records.settings("choose lists") if name.startswith(_SEPARATED)]
    return records.best("choose lists", CHOSEN_BY["lists"], bounds)
