"""Atlases of a few rows: what is found in them, in which order, and what is said of those that are none."""

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from atlas_material import FACTS, ROWS, SAE, row, write_atlas

import multitool as mt
from multitool.errors import UserError
from multitool.evidence import verdicts
from multitool.jobs.find import found_in_atlas
from multitool.recipes.atlas import AtlasSearch
from multitool.store import atlas_tables
from multitool.store.atlas_schema import COLUMNS, SCHEMA
from multitool.store.atlases import MOST_WORDS, open_atlas


@pytest.fixture
def atlas(tmp_path):
    return open_atlas(write_atlas(tmp_path))


def numbers(found) -> list[int]:
    return [one.feature for one in found]


def test_words_are_found_where_others_begin_with_them_in_any_case(atlas):
    found = atlas.search("rain")
    assert [(one.feature, round(one.score, 6)) for one in found] == [
        (927, 0.125 + 1 + 1),  # "Rainy weather", first in the list and first in the scan
        (5, 1 / 2),  # second in the list
        (3, 0.25),  # "rain", not "train"
    ]
    assert atlas.search("RAIN") == found
    assert numbers(atlas.search("weather")) == [927]
    assert not atlas.search("eather") and not atlas.search("rains")


def test_words_of_other_scripts(tmp_path):
    atlas = open_atlas(write_atlas(tmp_path, [row(1, [("下雨的天", 0.5)]), row(2, [("ДОЖДЬ идёт", 0.5)], ["Été"])]))
    assert numbers(atlas.search("雨")) == numbers(atlas.search("雨天")) == [1]
    assert numbers(atlas.search("дожд")) == numbers(atlas.search("ÉT")) == [2]


def test_all_words_must_occur_and_the_mean_of_their_scores_counts(atlas):
    found = atlas.search("fall, RAIN!")
    assert [(one.feature, one.score) for one in found] == [(927, (0.25 + 2.125) / 2), (5, (0.5 + 1 + 0.5) / 2)]
    assert not atlas.search("rain snow")


def test_a_definition_counts_once_and_of_tokens_the_first(tmp_path):
    rows = [row(1, [("rain rains rainy", 0.5)], [" x", " rainy", " rain"]), row(2, [("rain", 0.75), ("rain", 0.75)])]
    assert [(one.feature, one.score) for one in open_atlas(write_atlas(tmp_path, rows)).search("rain")] == [
        (1, 0.5 + 0.5), (2, 1.0),
    ]  # fmt: skip


def test_filters(atlas):
    assert numbers(atlas.search("rain", verdict="no")) == [927, 3]
    assert numbers(atlas.search("rain", verdict="partly")) == numbers(atlas.search("rain", verdict="agrees")) == [927]
    assert numbers(atlas.search("rain", max_entropy=2)) == [927, 5]
    assert numbers(atlas.search("rain", min_cosine=0.5)) == [927, 5]
    assert numbers(atlas.search("rain", min_cosine=0.5, max_entropy=1, sae=SAE)) == [5]
    assert not atlas.search("rain", sae=["another/sae"])
    assert numbers(atlas.search("rain", top=1)) == [927]


def test_without_words_the_evidence_orders(atlas):
    assert numbers(atlas.search("")) == [927, 3, 5, 7]
    assert numbers(atlas.search(" ", min_cosine=0)) == [927, 3, 5]
    assert not any(one.score for one in atlas.search(""))


def test_a_feature_comes_once_by_its_best_setting(tmp_path):
    rows = [
        row(1, [("rain", 0.25)], verdict="no"), row(1, [("rain", 0.5)], setting=1, weights="decoder", verdict="agrees")
    ]
    atlas = open_atlas(write_atlas(tmp_path, rows))
    found, = atlas.search("rain")
    assert (found.weights, found.verdict, found.score) == ("decoder", "agrees", 0.5)
    assert found.settings == FACTS["settings"][1]
    assert atlas.search("")[0].weights == "decoder"
    assert len(atlas) == 2


def test_what_is_told_of_a_feature(atlas):
    found = atlas.search("storm")[0]
    assert asdict(found) == {
        "sae": SAE, "feature": 927, "score": 0.5, "weights": "encoder", "verdict": "agrees", "auroc": 0.9,
        "first_token_entropy": 2.0, "encoder_decoder_cosine": 0.5,
        "definitions": (("water that falls", 0.25), ("Rainy weather", 0.125)), "tokens": (" Rain", " rain"),
        "strongest_tokens": (" rain", " storm"), "settings": FACTS["settings"][0], "problem": "",
    }  # fmt: skip
    nothing = atlas.search("")[-1]
    assert (nothing.feature, nothing.verdict, nothing.auroc, nothing.definitions) == (7, None, None, ())
    assert (nothing.problem, found.problem) == ("Its decoder is zero.", "")


def test_descriptions(atlas):
    assert atlas.describe(SAE, [5, 927, 3, 7, 8, -1, 2**40]) == [
        "to fall · falling, Raining",  # the list, where there is no scan
        "water that falls · rain, storm",
        "train",  # its definitions are not what fires it
        "Its decoder is zero.",
        "", "", "",
    ]  # fmt: skip
    assert atlas.describe("another/sae", [927]) == [""]
    assert atlas.describe(SAE, []) == []


def test_several_atlases_as_one(tmp_path):
    other = {**ROWS[0], "sae": "x/other", "feature": 1}
    write_atlas(tmp_path / "embed")
    write_atlas(tmp_path / "more" / "other", [other], FACTS | {"sae": "x/other", "settings": []})
    atlas = open_atlas(tmp_path)
    assert atlas.saes == (SAE, "x/other")
    assert [(one.sae, one.feature) for one in atlas.search("storm")] == [(SAE, 927), ("x/other", 1)]
    assert [one.sae for one in atlas.search("storm", sae="x/other")] == ["x/other"]
    assert atlas.search("storm", sae="x/other")[0].settings == {}
    assert [told["sae"] for told in atlas.facts] == [SAE, "x/other"]
    both = open_atlas(tmp_path / "embed", tmp_path / "more" / "other")
    assert both.search("storm") == atlas.search("storm")


def test_the_metadata_of_the_files_are_enough_and_trees_are_not_needed(tmp_path):
    schema = pa.schema([field for field in COLUMNS if field.name != "tree"])
    write_atlas(tmp_path, name="hook_embed.parquet", schema=schema)
    (tmp_path / "atlas.json").unlink()
    assert numbers(open_atlas(tmp_path).search("storm")) == [927]


def test_texts_may_hold_anything(tmp_path):
    wild = row(1, [("<b>\u202erain\x00\n" + "x" * 10_000, 7.5), ("", float("nan"))], ["\\xe2\\x80", ""] * 400,
               first_token_entropy=float("inf"), verdict="splendid", setting=99)
    atlas = open_atlas(write_atlas(tmp_path, [wild]))
    found, = atlas.search("rain")
    assert found.score == 1 and found.verdict is None and found.first_token_entropy is None and found.settings == {}
    assert len(found.definitions[0][0]) == atlas_tables.LONGEST_TEXT and len(found.tokens) == 100
    assert found.definitions[1] == ("", 0)
    assert atlas.describe(SAE, [1])[0].startswith(r"<b>\u202erain\x00\n")
    assert len(atlas.describe(SAE, [1])[0]) < 100


@pytest.mark.parametrize("values, said", [
    ({"words": "…!"}, "no letter or digit"),
    ({"words": "\ud800"}, "half a surrogate pair"),
    ({"words": "x" * 501}, "at most 500 characters"),
    ({"words": " ".join(str(word) for word in range(MOST_WORDS + 1))}, "21 words; at most 20"),
    ({"words": 5}, "must be a text"),
    ({"sae": "another/sae"}, f"nothing of the SAE 'another/sae'; it has {SAE}"),
    ({"verdict": "good"}, "valid are agrees, partly, no"),
    ({"max_entropy": "low"}, "max_entropy is 'low'; it must be a number"),
    ({"max_entropy": -1}, "from 0 to 100"),
    ({"min_cosine": float("nan")}, "min_cosine is nan"),
    ({"top": 0}, "from 1 to 200"),
    ({"top": True}, "from 1 to 200"),
])  # fmt: skip
def test_searches_that_cannot_be(atlas, values, said):
    with pytest.raises(UserError, match=said):
        atlas.search(**{"words": "rain"} | values)


def test_places_without_an_atlas(tmp_path):
    for name in ("nowhere", "/no/such/folder", r"C:\x", "a/b/c", "a b/c", "x\0y", ""):
        with pytest.raises(UserError, match="no such folder"):
            open_atlas(name)
    with pytest.raises(UserError, match="no Parquet files"):
        open_atlas(tmp_path)


def changed(**columns):
    """The columns with other types, or without those that are None."""
    fields = [field.with_type(columns.get(field.name, field.type)) for field in COLUMNS
              if columns.get(field.name, field.type) is not None]
    return pa.schema(fields)


@pytest.mark.parametrize("how, said", [
    ({"facts": None}, "its metadata do not name " + SCHEMA),
    ({"facts": FACTS | {"schema": "sae-multitool/atlas/2"}}, "of the schema 'sae-multitool/atlas/2'"),
    ({"facts": [1]}, r"of the schema \[1\]"),
    ({"schema": changed(definitions=None, auroc=None)}, "has no column auroc, definitions|no column definitions"),
    ({"schema": changed(tokens=pa.string()), "rows": [{"sae": SAE, "feature": 1, "tokens": "x"}]}, "cannot be read"),
    ({"schema": changed(feature=pa.string()), "rows": [{"sae": SAE, "feature": "x"}]}, "cannot be read"),
    ({"rows": [row(-1)]}, "rows that name no feature"),
    ({"rows": [{"feature": 5}]}, "rows that name no feature"),
])  # fmt: skip
def test_tables_that_are_no_atlas(tmp_path, how, said):
    with pytest.raises(UserError, match=said):
        open_atlas(write_atlas(tmp_path, **how))


@pytest.mark.parametrize("damage", [
    lambda whole: whole[: len(whole) // 2],
    lambda whole: b"",
    lambda whole: b"PK\x03\x04 something else",
    lambda whole: whole[:100] + bytes(200) + whole[300:],
    lambda whole: whole[:-200] + bytes(192) + whole[-8:],
])
def test_files_that_are_cut_or_damaged(tmp_path, damage):
    file, = write_atlas(tmp_path).rglob("*.parquet")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"features-000000-002047\.parquet cannot be read as a table of an atlas"):
        open_atlas(tmp_path)


def test_strings_that_are_no_unicode(tmp_path):
    file, = write_atlas(tmp_path, [row(1)]).rglob("*.parquet")
    table = pq.read_table(file)
    ends = pa.array([0, 3], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(b"\xff\xfex")])
    pq.write_table(table.set_column(0, table.schema.field(0), broken), file)
    with pytest.raises(UserError, match="cannot be read as a table of an atlas"):
        open_atlas(tmp_path)


def test_a_pointer_of_git_lfs(tmp_path):
    file, = write_atlas(tmp_path).rglob("*.parquet")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="git lfs pull"):
        open_atlas(tmp_path)


def test_more_rows_than_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas_tables, "MAX_ROWS", 3)
    with pytest.raises(UserError, match="more than 3 rows"):
        open_atlas(write_atlas(tmp_path))


def test_what_others_write_in_other_types_for_the_same(tmp_path):
    folder = write_atlas(tmp_path)
    file, = folder.rglob("*.parquet")
    table = pq.read_table(file)
    large = table.schema.set(0, pa.field("sae", pa.large_string())).set(3, pa.field("weights", pa.large_string()))
    pq.write_table(table.cast(large), file)
    assert numbers(open_atlas(folder).search("storm")) == [927]


def test_an_empty_atlas(tmp_path):
    atlas = open_atlas(write_atlas(tmp_path, []))
    assert (len(atlas), atlas.saes, atlas.search("rain"), atlas.search(""), atlas.describe(SAE, [1])) == (
        0, (), [], [], [""]
    )  # fmt: skip


def test_verdicts_are_those_of_the_evidence():
    assert atlas_tables.VERDICTS == (verdicts.NO, verdicts.PARTLY, verdicts.AGREES)


def test_found_features(tmp_path):
    found = mt.find_in_atlas("rain", atlas=write_atlas(tmp_path), verdict="no", top=1)
    assert found.rows == [[1, SAE, 927, 2.125, "agrees", 0.9, 2.0, 0.5, "water that falls · rain, storm"]]
    assert json.loads(json.dumps(found.to_dict()))["settings"] == {
        "words": "rain", "sae": None, "verdict": "no", "max_entropy": None, "min_cosine": None, "top": 1,
    }  # fmt: skip
    assert "no such feature" in mt.find_in_atlas("snow", atlas=open_atlas(tmp_path)).sentence
    assert "score" not in mt.find_in_atlas(atlas=tmp_path).columns
    offered = found_in_atlas(open_atlas(tmp_path), AtlasSearch(words="rain"), offered=("x/other",))
    assert not offered.features
