"""Atlases on the hub: pushed by who may, fetched by name, searched; and what is said where that cannot be."""

import json

import pytest
import yaml
from atlas_material import FACTS, ROWS, SAE, row, write_atlas
from hub_clients import READER, UNKNOWN, VISITOR, Tool, fetched

pytestmark = pytest.mark.slow  # a process of its own

NAME = "reader/atlas-of-rain"
DATASET = f"datasets/{NAME}"

PUSH = """
    import multitool as mt
    try:
        answer = mt.push_atlas({folder!r}, {name!r}, **{more!r})
    except mt.UserError as error:
        answer = ["refused", str(error)]
"""
FIND = """
    import multitool as mt
    try:
        answer = [(one.sae, one.feature) for one in mt.open_atlas({name!r}).search("rain")]
    except mt.UserError as error:
        answer = ["refused", str(error)]
"""


@pytest.fixture
def hub(hub):
    hub.writers = {"reader": {READER}}
    return hub


@pytest.fixture
def folder(tmp_path):
    """An atlas in two parts, with what else lies in such a folder."""
    write_atlas(tmp_path / "atlas", ROWS[:2], name="data/features-000003-000927.parquet")
    write_atlas(tmp_path / "atlas", ROWS[2:], name="data/features-000005-000007.parquet")
    (tmp_path / "atlas" / ".lock").touch()
    (tmp_path / "atlas" / "data" / "features-000008-000009.parquet.unfinished").touch()
    (tmp_path / "atlas" / "notes.txt").write_text("mine")
    return tmp_path / "atlas"


def push(tool, folder, name=NAME, token=READER, **more):
    return tool.python(PUSH.format(folder=str(folder), name=name, more=more), token=token)


def refusal(answer) -> str:
    kind, sentence = answer
    assert kind == "refused" and "hf_secret" not in sentence and "\n" not in sentence
    return sentence


def test_pushed_fetched_and_searched(tool, hub, folder):
    assert push(tool, folder, licence="cc-by-4.0") == f"{hub.url}/datasets/{NAME}"
    assert sorted(hub.repos[DATASET]) == [
        ".gitattributes", "README.md", "atlas.json", "data/features-000003-000927.parquet",
        "data/features-000005-000007.parquet",
    ]  # fmt: skip
    assert hub.private == {DATASET}
    assert refusal(tool.python(FIND.format(name=NAME))).endswith("or set a token that may read it.")
    hub.clear()
    assert tool.python(FIND.format(name=NAME), token=READER) == [[SAE, 927], [SAE, 5], [SAE, 3]]
    assert [name.removeprefix(f"{DATASET}/") for name in fetched(hub)] == [
        "atlas.json", "data/features-000003-000927.parquet", "data/features-000005-000007.parquet",
    ]  # fmt: skip
    hub.down = True  # what has been fetched is had without the hub
    assert tool.python(FIND.format(name=NAME), token=READER) == [[SAE, 927], [SAE, 5], [SAE, 3]]


def test_large_files_go_by_lfs(hub, folder, tmp_path):
    hub.lfs = (".parquet",)
    with Tool(hub, tmp_path / "home", HF_HUB_DISABLE_XET="1") as tool:
        assert push(tool, folder, private=False) == f"{hub.url}/datasets/{NAME}"
        assert not hub.private
        assert tool.python(FIND.format(name=NAME)) == [[SAE, 927], [SAE, 5], [SAE, 3]]
    put = [asked for asked in hub.requests if asked.method == "PUT"]
    assert len(put) == 2 and not any(asked.token for asked in put), "where files are kept is another host"


def test_the_card(tool, hub, folder):
    push(tool, folder, licence="mit")
    _, head, text = hub.repos[DATASET]["README.md"].decode().split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "**/*.parquet"}]}
    ]
    assert told["license"] == "mit"
    assert told["sae_multitool"] == {"schema": FACTS["schema"], "sae": [SAE], "model": [FACTS["model"]]}
    settings = text.split("```json\n")[1].split("```")[0]
    assert json.loads(settings) == FACTS
    assert f'load_dataset("{NAME}", split="train")' in text and "4 rows" in text


def test_more_of_the_same_atlas_is_added(tool, hub, folder, tmp_path):
    push(tool, folder)
    other = write_atlas(tmp_path / "other", [row(9, [("rain", 0.5)])], name="data/features-000009-000009.parquet")
    plan = json.loads((other / "atlas.json").read_text())
    (other / "atlas.json").write_text(json.dumps(plan | {"features": [[9, 10]]}))
    push(tool, other)
    assert tool.python(FIND.format(name=NAME), token=READER) == [[SAE, 927], [SAE, 5], [SAE, 9], [SAE, 3]]


def test_what_is_not_pushed(tool, hub, folder, tmp_path):
    other = write_atlas(tmp_path / "other", facts=FACTS | {"settings": [{"weights": "pullback"}]})
    push(tool, folder)
    before = dict(hub.repos[DATASET])
    assert "holds another atlas: its atlas.json tells of other settings" in refusal(push(tool, other))
    hub.repos["datasets/reader/prose"] = {"train.parquet": b"", ".gitattributes": b""}
    assert "holds no atlas, but .gitattributes, train.parquet" in refusal(push(tool, folder, "reader/prose"))
    assert "no Parquet files" in refusal(push(tool, tmp_path / "nothing"))
    (other / "atlas.json").unlink()
    assert "no atlas.json" in refusal(push(tool, other, "reader/new"))
    half, = other.rglob("*.parquet")
    half.write_bytes(half.read_bytes()[:500])
    (other / "atlas.json").touch()
    assert "cut short or damaged" in refusal(push(tool, other, "reader/new"))
    assert "OWNER/NAME" in refusal(push(tool, folder, "rain"))
    assert "cannot be a repository" in refusal(push(tool, folder, "reader/rain..atlas"))
    assert '"license" must be one of [mit, cc-by-4.0] Correct the licence' in refusal(
        push(tool, folder, "reader/other", licence="wtf")
    )
    assert "licence is 'MIT\\n'" in refusal(push(tool, folder, licence="MIT\n"))
    assert hub.repos[DATASET] == before and "datasets/reader/new" not in hub.repos


def test_who_may_not_push(tool, hub, folder):
    assert "`hf auth login`" in refusal(push(tool, folder, token=None))
    assert not hub.requests
    assert "refuses the token" in refusal(push(tool, folder, token=UNKNOWN))
    assert "may not write to 'reader/atlas-of-rain'. 'reader' must be" in refusal(push(tool, folder, token=VISITOR))
    push(tool, folder, private=False)
    assert "may not write" in refusal(push(tool, folder, token=VISITOR))
    hub.down = True
    assert "answered 503" in refusal(push(tool, folder))
    hub.stop()
    assert "cannot be reached" in refusal(push(tool, folder))


def test_datasets_that_are_no_atlas(tool, hub, folder, tmp_path):
    hub.repos["datasets/a/prose"] = {"train.parquet": b"PAR1", "README.md": b""}
    assert "'a/prose' is no atlas: it has no atlas.json" in refusal(tool.python(FIND.format(name="a/prose")))
    assert not fetched(hub)
    assert "has no 'a/nothing' that is public" in refusal(tool.python(FIND.format(name="a/nothing")))
    file, = write_atlas(tmp_path / "new", facts=FACTS | {"schema": "sae-multitool/atlas/9"}).rglob("*.parquet")
    hub.repos["datasets/a/newer"] = {"atlas.json": b"{}", "data/x.parquet": file.read_bytes()}
    assert "of the schema 'sae-multitool/atlas/9'" in refusal(tool.python(FIND.format(name="a/newer")))
    hub.repos["datasets/a/half"] = {"atlas.json": b"{}", "data/x.parquet": file.read_bytes()[:300]}
    assert "cut short or damaged" in refusal(tool.python(FIND.format(name="a/half")))


def test_a_disk_without_room(tool, hub, folder):
    push(tool, folder)
    tool.forget()
    answer = tool.python(FIND.format(name=NAME), token=READER, free=10)
    assert "Make room" in refusal(answer)


def test_the_command_makes_and_pushes(tool, hub, tmp_path):
    done = tool("atlas", "--sae", SAE, "--features", "926:928", "--cutoff", 0.05, "--device", "cpu",
                "--out", tmp_path / "out", "--push", NAME, "--licence", "mit", token=READER)  # fmt: skip
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1] == f"{hub.url}/datasets/{NAME}"
    assert hub.private == {DATASET} and "license: mit" in hub.repos[DATASET]["README.md"].decode()
    assert [feature for _, feature in tool.python(FIND.format(name=NAME), token=READER)] == [927]


@pytest.mark.parametrize("more, said", [
    (("--push", "rain"), "Name it as OWNER/NAME"),
    (("--push", NAME), "`hf auth login`"),
    (("--public",), "go with --push"),
    (("--licence", "mit"), "go with --push"),
])
def test_the_command_refuses_before_the_work(tool, tmp_path, more, said):
    done = tool("atlas", "--sae", SAE, "--features", "all", "--out", tmp_path / "out", *more)
    assert said in done.refusal
    assert not (tmp_path / "out").exists()
