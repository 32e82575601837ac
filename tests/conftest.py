import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads it: no test needs the hub, and none may wait for it

import shutil

import pytest
import torch
from golden_files import Golden
from playwright.sync_api import sync_playwright
from tiny import ARCHITECTURES, byte_level_tokenizer, sentencepiece_tokenizer, tiny_subject

from multitool.store.library import Library

# The models are so small that a second thread costs more than it brings.
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--renew", action="store_true", help="store the present results as the golden files")


@pytest.fixture(scope="session")
def golden(pytestconfig):
    """Compares a result with the stored one, see golden_files."""
    return Golden(pytestconfig.getoption("renew"))


@pytest.fixture(scope="session")
def tokenizer():
    return byte_level_tokenizer()


@pytest.fixture(scope="session")
def sentencepiece():
    return sentencepiece_tokenizer()


@pytest.fixture(scope="session", params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture(scope="session")
def subject(architecture, tokenizer):
    """A tiny random model of every architecture in turn."""
    return tiny_subject(architecture, tokenizer)


@pytest.fixture(scope="session")
def demo_library():
    """The demo model and its SAEs in float32, where results are exact."""
    return Library(dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def browser():
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    assert executable, "the browser tests need Chromium (Debian's package chromium)"
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu", *quiet]
        )
        yield chromium
        chromium.close()
