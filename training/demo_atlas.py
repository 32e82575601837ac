"""The atlas of the SAEs of the demo's first model, a file for each: ``python -m training.demo_atlas FOLDER``.

Half an hour on two cores.

In FOLDER the atlases are made, part by part, and gone on with where they were stopped. What is shipped is the same in
fewer bytes.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from multitool.jobs.local import atlas
from multitool.recipes.atlas import AtlasRecipe
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.atlases import DEMO_ATLAS
from multitool.store.library import Library
from multitool.store.registry import demo_saes

# So much as a search needs.
TREE = TreeRecipe(cutoff=5e-3)
KEPT = AtlasRecipe(definitions=5, top=10, evidence=True, trees=False)


def main(folder: Path) -> None:
    library = Library(dtype="float32", device="cpu")
    DEMO_ATLAS.mkdir(exist_ok=True)
    for entry in demo_saes():
        out = folder / entry.hook
        for progress in atlas(library, [VectorRecipe(sae=entry.name, feature=0)], None, out, TREE, KEPT):
            print(f"{entry.name}: {progress.told}", flush=True)
        print("wrote", packed(out, DEMO_ATLAS / f"{entry.hook}.parquet"))


def packed(folder: Path, file: Path) -> Path:
    """The parts of an atlas in one file."""
    table = pa.concat_tables([pq.read_table(part) for part in sorted((folder / "data").glob("*.parquet"))])
    pq.write_table(table, file, compression="zstd", compression_level=19)
    return file


if __name__ == "__main__":
    main(Path(sys.argv[1]))
