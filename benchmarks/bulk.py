"""Many features of an SAE described together: their trees, their evidence, the memory, several workers."""

from benchmarks.bulk_evidence import evidence_in_bulk
from benchmarks.bulk_growth import growth_in_bulk
from benchmarks.bulk_memory import memory_of_atlas
from benchmarks.bulk_ray import workers_by_ray
from benchmarks.measuring import Row


def bulk(repeats: int, smoke: bool) -> list[Row]:
    """All that an atlas takes, part by part."""
    parts = growth_in_bulk, evidence_in_bulk, memory_of_atlas, workers_by_ray
    return [row for part in parts for row in part(repeats, smoke)]
