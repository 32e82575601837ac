import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads it: no test needs the hub, and none may wait for it
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # on a GPU, products that are the same in every run

import shutil
import sys

import pytest
from golden_files import Golden

# What takes seconds to import is imported where it is used, so that the tests of a small module begin at once.

_SLOW_FIXTURES = {"subject", "demo_library", "browser"}  # tests that use them are slow without being marked so
_SLOW_FOLDERS = {"app", "golden", "hub", "zerogpu"}


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="only tests that need no model, no browser and no server")
    parser.addoption("--renew", action="store_true", help="store the present results as the golden files")


def pytest_ignore_collect(collection_path, config):
    if config.getoption("--fast") and collection_path.parent == config.rootpath / "tests":
        return collection_path.name in _SLOW_FOLDERS or None
    return None


def pytest_collection_modifyitems(config, items):
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the models are so small that a second thread costs more than it brings
        # On a GPU, exact as on the processor, and the same in every run.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        if os.environ.get("SAE_MULTITOOL_TEST_DEVICE") == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
    left_out = set()
    if config.getoption("--fast"):
        left_out |= {item for item in items
                     if item.get_closest_marker("slow") or _SLOW_FIXTURES & set(item.fixturenames)}
    if "gemma" not in config.getoption("markexpr"):  # whatever else is chosen by -m
        left_out |= {item for item in items if item.get_closest_marker("gemma")}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc):
    of_its_own = any("architecture" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "architecture" in metafunc.fixturenames and not of_its_own:
        from tiny import ARCHITECTURES

        metafunc.parametrize("architecture", ARCHITECTURES, scope="session")


@pytest.fixture(scope="session")
def golden(pytestconfig):
    """Compares a result with the stored one, see golden_files."""
    return Golden(pytestconfig.getoption("renew"))


@pytest.fixture(scope="session")
def tokenizer():
    from tiny import byte_level_tokenizer

    return byte_level_tokenizer()


@pytest.fixture(scope="session")
def sentencepiece():
    from tiny import sentencepiece_tokenizer

    return sentencepiece_tokenizer()


@pytest.fixture(scope="session")
def subject(architecture, tokenizer):
    """A tiny random model of every architecture in turn."""
    from tiny import tiny_subject

    return tiny_subject(architecture, tokenizer)


@pytest.fixture(scope="session")
def demo_library():
    """The demo model and its SAEs in float32, where results are exact."""
    from multitool.store.library import Library

    return Library(dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    assert executable, "the browser tests need Chromium (Debian's package chromium)"
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu", *quiet]
        )
        yield chromium
        chromium.close()
