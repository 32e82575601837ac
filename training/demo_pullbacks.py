"""The matrices beside the demo's SAEs that carry directions back to the embeddings, in a few minutes on two cores:
``python -m training.demo_pullbacks``, and with the name of one of ``subject_model.MODELS`` those of that model.

They depend on the model and the hook alone, not on the SAEs.
"""

import sys

from multitool.store.kept_rows import open_rows
from multitool.store.library import Library
from multitool.store.pullbacks import write_shipped
from multitool.store.registry import demo_saes
from training.subject_model import MODELS


def main(model: str) -> None:
    library = Library(dtype="float32", device="cpu")
    for entry in demo_saes(MODELS[model].name):
        if entry.kind == "embed":
            continue
        _, subject = library.load(entry)
        task = library.pullback_task(entry, subject)
        for done in library.do(task):
            print(f"{entry.name}: {done} of {task.n_rows}", flush=True)
        rows = open_rows(task)
        assert rows is not None
        print("wrote", write_shipped(entry.folder, rows.part(0, task.n_rows)))


if __name__ == "__main__":
    main(*(sys.argv[1:] or [next(iter(MODELS))]))
