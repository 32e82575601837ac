import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads it: no test needs the hub, and none may wait for it

import shutil

import pytest

# What takes seconds to import is imported where it is used, so that the tests of one small module begin at once.

# Fixtures that take seconds: models, browsers, servers.
_SLOW_FIXTURES = {"subject", "demo_library", "browser", "app_server", "_hub"}


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="only tests that need no model, no browser and no server")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--fast"):
        return
    slow = [item for item in items if item.get_closest_marker("slow") or not _SLOW_FIXTURES.isdisjoint(item.fixturenames)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in set(slow)]


def pytest_generate_tests(metafunc):
    if "architecture" in metafunc.fixturenames:
        from tiny import ARCHITECTURES

        metafunc.parametrize("architecture", ARCHITECTURES, scope="session")


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
