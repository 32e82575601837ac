"""The Space's entry, and the way to run the page on one's own machine: ``python app.py``."""

import gc
import os
import sys
import time

# Until the page is there: what is imported and built for it stays, and looking through it time and again takes seconds.
gc.disable()
# ZeroGPU moves the default model to the GPU and would then delete its files from the cache, to be fetched again.
os.environ.setdefault("ZEROGPU_MMAP_AUTOPRUNE_PATTERN", "nothing")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are forked for ZeroGPU

from multitool.errors import UserError
from multitool.page.proxies import spare_localhost
from multitool.process import check_app, interrupted, interruptible, leave_on_interrupt, prepare_streams

prepare_streams()  # Gradio prints characters that not every terminal has
leave_on_interrupt()
try:
    check_app()
    spare_localhost()  # before Gradio is imported, which reads what proxies are set
except UserError as error:
    raise SystemExit(f"multitool: {error}") from None

import spaces  # noqa: F401  (on ZeroGPU it must come before anything that may touch CUDA)

from multitool.page.build import CSS, THEME, build, launch_options
from multitool.page.opening import choose_opening
from multitool.page.served_files import keep_served
from multitool.page.settings import read_settings
from multitool.store.folders import clear_leftovers
from multitool.store.library import Library


def main() -> None:
    """Load the model that the page opens with (on ZeroGPU: on "cuda", before the launch), build the page, serve it."""
    began = time.time()
    try:
        settings = read_settings()
        clear_leftovers()
        library = Library(
            dtype=settings.dtype,
            device=settings.device,
            patterns=settings.allow,
            max_models=settings.models,
            max_model_bytes=settings.max_model_bytes,
            bars=False,
            atlas=settings.atlas,
        )
        library.atlas()  # one that cannot be read is told now
        page = build(library, settings, choose_opening(library, settings))
    except UserError as error:
        raise SystemExit(f"multitool: {error}") from error
    try:
        page.launch(theme=THEME, css_paths=CSS, prevent_thread_lock=True, **launch_options(settings))
    except OSError as error:  # a port that is taken
        raise SystemExit(f"multitool: The page cannot be served: {error}") from error
    keep_served(settings.files_mb, began)
    gc.freeze()
    gc.enable()
    page.block_thread()


if __name__ == "__main__":
    try:
        with interruptible():
            main()
    except KeyboardInterrupt:
        sys.exit(interrupted())
