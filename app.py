"""The Space's entry, and the way to run the page on one's own machine: ``python app.py``."""

import spaces  # noqa: F401  (on ZeroGPU it must come before anything that may touch CUDA)

from multitool.errors import UserError
from multitool.loading import Library
from multitool.ui import CSS, THEME, build


def main() -> None:
    """Load the default SAE and its model, build the page and serve it."""
    try:
        page = build(Library())
    except UserError as error:
        raise SystemExit(f"multitool: {error}") from error
    page.launch(theme=THEME, css_paths=CSS, max_file_size="20mb", ssr_mode=False)


if __name__ == "__main__":
    main()
