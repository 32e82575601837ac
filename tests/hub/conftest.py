"""The stand-in hub and the tool's process for the tests here."""

import pytest
from hub_clients import READER, VISITOR, Tool, as_at_first
from standin_hub import StandInHub
from standin_repos import standin_repos


@pytest.fixture(scope="session")
def repos(tmp_path_factory):
    return standin_repos(tmp_path_factory.mktemp("repos"))


@pytest.fixture(scope="session")
def _hub():
    with StandInHub({READER, VISITOR}) as hub:
        yield hub


@pytest.fixture
def hub(_hub, repos):
    return as_at_first(_hub, repos)


@pytest.fixture(scope="session")
def _tool(_hub, tmp_path_factory):
    with Tool(_hub, tmp_path_factory.mktemp("tool")) as tool:
        yield tool


@pytest.fixture
def tool(_tool, hub):
    """The tool with an empty cache."""
    _tool.forget()
    return _tool
