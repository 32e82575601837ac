"""What an operator sets in the environment, and what holds where nothing is set."""

from dataclasses import fields
from pathlib import Path

import pytest

from multitool.errors import UserError
from multitool.page.settings import ServerSettings, read_settings

SPACE = {"SPACE_ID": "me/space"}
ZEROGPU = SPACE | {"SPACES_ZERO_GPU": "true"}
SETTABLE = {field.name for field in fields(ServerSettings)} - {"on_space", "zero_gpu"}


def test_on_a_persons_own_machine_nothing_is_limited_but_what_the_machine_can_bear():
    settings = read_settings({})
    assert settings == ServerSettings()
    assert (settings.on_space, settings.zero_gpu) == (False, False)
    assert (settings.seconds, settings.max_model_bytes, settings.allow) == (None, None, ())
    assert (settings.calls, settings.files_mb) == (None, None)


def test_a_space_is_bounded():
    settings = read_settings(SPACE)
    assert settings.on_space
    assert (settings.max_nodes, settings.max_prompt, settings.max_model_bytes) == (5000, 1000, 12_000_000_000)
    assert settings.seconds and settings.calls and settings.files_mb
    assert settings.calls < settings.queue


@pytest.mark.parametrize("value", ["true", "1", "T", "True"])
def test_zerogpu_has_a_queue_of_more_than_one_and_a_time_that_every_visitor_has(value):
    settings = read_settings(SPACE | {"SPACES_ZERO_GPU": value})
    assert settings.zero_gpu
    assert settings.queue > 1
    # A visitor without an account has 120 seconds a day, and a second counts as up to one and a half.
    assert settings.seconds * 1.5 <= 120


def test_every_variable_is_read():
    values = {
        "SAE": "demo/hook_embed", "FEATURE": "7", "ALLOW": "gemma-2b-res-jb, model:openai-community/gpt2",
        "MAX_MODEL_GB": "2.5", "MODELS": "3", "DTYPE": "bfloat16", "DEVICE": "cpu", "MAX_NODES": "99",
        "MAX_PROMPT": "50", "SECONDS": "9", "QUEUE": "4", "CONCURRENCY": "5", "CALLS": "6", "FILES_MB": "70",
        "STATES": "80", "ATLAS": "somebody/atlas", "TREES_MB": "90",
    }  # fmt: skip
    settings = read_settings(ZEROGPU | {f"SAE_MULTITOOL_{name}": value for name, value in values.items()})
    assert settings == ServerSettings(
        on_space=True, zero_gpu=True, sae="demo/hook_embed", feature=7,
        allow=("gemma-2b-res-jb", "model:openai-community/gpt2"), max_model_gb=2.5, models=3, dtype="bfloat16",
        device="cpu", max_nodes=99, max_prompt=50, seconds=9, queue=4, concurrency=5, calls=6, files_mb=70,
        states=80, atlas="somebody/atlas", trees_mb=90,
    )
    assert {name.lower() for name in values} == SETTABLE


def test_an_empty_variable_is_none():
    assert read_settings({"SAE_MULTITOOL_QUEUE": " ", "SAE_MULTITOOL_SAE": ""}) == ServerSettings()


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("QUEUE", "0", "from 1"),
        ("QUEUE", "many", "a whole number"),
        ("MAX_NODES", "10000001", "to 10000000"),
        ("MAX_MODEL_GB", "-1", "above 0"),
        ("MAX_MODEL_GB", "nan", "above 0"),
        ("FEATURE", "-1", "from 0"),
        ("SECONDS", "1.5", "a whole number"),
        ("DTYPE", "float64", "valid are float32, bfloat16, float16"),
        ("DEVICE", "gpu", "valid are auto, cpu, cuda"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_variable_and_what_is_valid(name, value, valid):
    with pytest.raises(UserError) as error:
        read_settings({f"SAE_MULTITOOL_{name}": value})
    assert f"SAE_MULTITOOL_{name} is '{value}'" in str(error.value)
    assert valid in str(error.value)


def test_every_variable_is_documented():
    guide = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text(encoding="utf-8")
    for name in SETTABLE:
        assert f"`SAE_MULTITOOL_{name.upper()}`" in guide
