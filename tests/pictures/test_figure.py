"""Pictures of trees: nothing overlaps, nothing leaves the picture, and the recipe can be read off it."""

import io
import json
import re
import threading
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from multitool import __version__
from multitool.errors import UserError
from multitool.pictures.drawing import draw_tree
from multitool.pictures.figure import FORMATS, MOST_NODES, render
from multitool.pictures.placing import parted
from multitool.store.registry import saes
from multitool.text import percent
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.phrases import shown_part
from multitool.trees.tree import ROOT, Tree

SETTINGS = {
    "model": "google/gemma-2b", "sae": "gemma-2b-res-jb/blocks.6.hook_resid_post", "feature": 16383,
    "weights": "encoder", "encoder_share": 0.5, "centroid": True, "scale": 3.80417, "pca": [],
    "prompt": 'A typical definition of "{ghost}" would be "', "top_k": 7, "cutoff": 5e-05, "max_depth": 24,
    "max_nodes": 1999, "stop": True, "dtype": "bfloat16", "version": "0.1.0",
}  # fmt: skip
VECTOR = {"norm": 5.1, "distance_from_centroid": 3.80417, "mean_token_distance": 3.80417}
WORDS = (" a", " dog", " that", " barks", ",", " typically", "ness", " internationalisation", '."', "\n")
HOSTILE = (
    "$x$", "$\\frac{", "\\alpha", "<script>alert(1)</script>", "&amp;", "a\nb\r\n", "\0", "x" * 200, "W" * 200,
    " اللغة العربية", "עברית", "\u202egnirts", "中文字符", "🙂🙃", "\\xe2\\x80", "   ", "", " e\u0301\u0323", "_^{}%#~",
    "\t", '"""',
)  # fmt: skip


def tree(n: int, words=WORDS, seed: int = 0, branching: float = 3.0) -> Tree:
    """A random tree of ``n`` nodes; later nodes hang on earlier ones, at most 25 deep."""
    rng = np.random.default_rng(seed)
    parent, cumulative, depth, prob = [], [], [], []
    for node in range(n):
        candidates = [i for i in range(max(0, node - int(3 * branching)), node) if depth[i] < 25]
        up = ROOT if node < branching or not candidates else int(rng.choice(candidates))
        parent.append(up)
        depth.append(1 if up == ROOT else depth[up] + 1)
        prob.append(rng.uniform(0.05, 0.6))
        cumulative.append(prob[-1] * (1.0 if up == ROOT else cumulative[up]))
    tokens = tuple(words[i] for i in rng.permutation(np.arange(n) % len(words)))
    ends = ~np.isin(np.arange(n), parent) & np.array(['"' in token for token in tokens], dtype=bool)
    return Tree(np.array(parent, dtype=np.int64), np.arange(n), tokens, np.array(prob), np.array(cumulative), ends)


def document(n: int = 5, *, complete: bool = True, effective_cutoff: float = 5e-5, settings=(), **options):
    return DefinitionTree(
        tree(n, **options), SETTINGS | dict(settings), VECTOR, effective_cutoff, complete, seconds=1.0
    )


def checked(document: DefinitionTree) -> DefinitionTree:
    """With lifts from far below to far above what colours tell."""
    n = len(document.tree)
    lifts = np.random.default_rng(1).uniform(-3, 12, (n, 2))
    tree = replace(document.tree, lifts=lifts, activation=np.full(n, np.nan))
    return replace(document, tree=tree, evidence={"sentence": "This tree is made up."})


def texts(figure) -> list[str]:
    return [artist.get_text() for artist in figure.texts]


def assert_everything_readable(figure) -> None:
    """No two texts overlap and none leaves the figure."""
    renderer = figure.canvas.get_renderer()
    shown = [artist for artist in figure.texts if artist.get_text().strip()]
    boxes = np.array([artist.get_window_extent(renderer).extents for artist in shown])
    x0, y0, x1, y1 = boxes.T
    width, height = figure.get_size_inches() * figure.dpi
    outside = (x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height)
    assert not outside.any(), [shown[i].get_text()[:80] for i in np.flatnonzero(outside)]
    # Half a pixel is rounding.
    overlap = (np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0) > 0.5) & (
        np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0) > 0.5
    )
    pairs = np.argwhere(np.triu(overlap, 1))
    assert not len(pairs), [[shown[i].get_text()[:40] for i in pair] for pair in pairs[:5]]


@pytest.mark.parametrize("n", [5, 80, 250])
@pytest.mark.parametrize("words", [WORDS, HOSTILE], ids=["words", "hostile"])
def test_no_text_covers_another_or_leaves_the_picture(n, words):
    figure = draw_tree(document(n, words=words), max_nodes=n)
    assert_everything_readable(figure)
    assert len(figure.texts) > n / 10


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("n", [10, 80, 250])
def test_nor_where_much_is_hidden_and_colours_tell_the_lift(n, escaped):
    figure = draw_tree(checked(document(400, words=WORDS + HOSTILE, branching=12)), n, dark=True, escaped=escaped)
    assert_everything_readable(figure)
    assert len(hidden_marks(figure)) > 3


def hidden_marks(figure) -> list[str]:
    return [text for text in texts(figure) if re.fullmatch(r"… \S+%", text)]


def test_marks_tell_how_much_probability_is_hidden_behind_a_phrase_beside_its_children_and_at_the_prompt():
    #   a .5 ── b .3 ── e .1      c .05      d .15;   f .2
    made = Tree(
        np.array([ROOT, ROOT, 0, 0, 0, 2]), np.arange(6), ("a", "f", " b", " d", " c", " e"), np.full(6, 0.5),
        np.array([0.5, 0.2, 0.3, 0.15, 0.05, 0.1]), np.zeros(6, dtype=bool),
    )  # fmt: skip
    whole = DefinitionTree(made, SETTINGS, VECTOR, 5e-5, True, 0.0)
    assert hidden_marks(draw_tree(whole, 6)) == []
    assert hidden_marks(draw_tree(whole, 4)) == ["… 10%", "… 5%"]  # b goes on, and so does a, beside b and d
    assert hidden_marks(draw_tree(whole, 1)) == ["… 50%", "… 20%"]  # f stands at the prompt
    rare = replace(whole, tree=replace(made, cumulative_prob=np.array([0.5, 0.2, 0.3, 0.15, 0.02, 0.002])))
    assert hidden_marks(draw_tree(rare, 4)) == [], "little is not worth a mark"


def luminance(colour) -> float:
    return sum(weight * (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4)
               for weight, x in zip((0.2126, 0.7152, 0.0722), to_rgb(colour), strict=True))


def contrast(one, other) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("mark", [lambda document: document, checked], ids=["plain", "checked"])
def test_every_text_stands_out_from_the_paper(mark, dark):
    figure = draw_tree(mark(document(200)), 120, dark)
    paper = figure.get_facecolor()[:3]
    assert (luminance(paper) < 0.05) == dark
    assert min(contrast(artist.get_color(), paper) for artist in figure.texts) >= 4
    assert all(artist.get_alpha() is None for artist in figure.texts)
    assert min(contrast(patch.get_edgecolor()[:3], paper) for patch in figure.artists) >= 2.5


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_inks_tell_the_probability_and_colours_the_lift_by_lightness_too(dark):
    made = Tree(np.full(3, ROOT), np.arange(3), ("high", "mid", "low"), np.ones(3), np.array([0.5, 0.02, 0.0004]),
                np.zeros(3, dtype=bool))
    one = DefinitionTree(made, SETTINGS, VECTOR, 5e-5, True, 0.0)

    def colours(document):
        figure = draw_tree(document, dark=dark)
        found = {artist.get_text(): artist.get_color() for artist in figure.texts}
        return [contrast(found[word], figure.get_facecolor()[:3]) for word in ("high", "mid", "low")]

    high, mid, low = colours(one)
    assert high > 1.5 * mid > 1.5 * 1.2 * low
    lifts = np.array([[9.0, 7], [5, 3], [0, -2]])
    high, mid, low = colours(replace(one, tree=replace(made, lifts=lifts, activation=np.ones(3))))
    assert high > 1.2 * mid > 1.2 * 1.1 * low


@pytest.mark.parametrize("branching", [1, 10, 40], ids=["thin", "bushy", "broad"])
def test_trees_of_other_shapes_are_readable_too(branching):
    assert_everything_readable(draw_tree(document(80, branching=branching), max_nodes=80))


@pytest.mark.parametrize(
    ("rows", "n", "columns"),
    [
        ([8, 5, 8, 11, 5], 1, [[0, 1, 2, 3, 4]]),
        ([8, 5, 8, 11, 5], 2, [[0, 1, 2], [3, 4]]),
        ([8, 5, 8, 11, 5], 3, [[0, 1], [2], [3, 4]]),
        ([30, 1, 1], 2, [[0], [1, 2]]),
        ([1, 1], 3, []),
        ([], 1, []),
    ],
)
def test_blocks_are_parted_in_their_order_into_columns_as_low_as_can_be(rows, n, columns):
    assert [list(column) for column in parted(rows, n)] == columns


def test_first_phrases_stand_in_columns_where_that_makes_the_shape_of_a_page():
    and_so_on = [f" and{i}" for i in range(5)]
    figure = draw_tree(shallow({f" start{i}": and_so_on for i in range(8)}), max_nodes=100)
    assert_everything_readable(figure)
    width, height = figure.get_size_inches()
    assert height < 8 and width <= 10.5, "in one column it would be 13 inches high"
    places = {artist.get_text(): artist.get_position() for artist in figure.texts}
    first, last = places["start0"], places["start7"]
    assert last[0] > first[0] + 0.2, "it stands in another column"

    figure = draw_tree(shallow({" start": and_so_on}), max_nodes=100)
    assert figure.get_size_inches()[0] == pytest.approx(6.5)


def shallow(followers: dict[str, list[str]]) -> DefinitionTree:
    """A tree of first tokens, each with those that follow it."""
    tokens, parent, cumulative = [], [], []
    for first, others in followers.items():
        parent += [ROOT] + [len(tokens)] * len(others)
        tokens += [first, *others]
        cumulative += [0.1] + [0.02] * len(others)
    n = len(tokens)
    made = Tree(np.array(parent), np.arange(n), tuple(tokens), np.full(n, 0.1), np.array(cumulative), np.zeros(n, bool))
    return DefinitionTree(made, SETTINGS, VECTOR, 5e-5, True, seconds=1.0)


def test_only_the_most_probable_nodes_are_drawn_and_the_caption_says_how_many():
    few, many = draw_tree(document(250), max_nodes=10), draw_tree(document(250), max_nodes=200)
    assert len(few.texts) < len(many.texts)
    caption = " ".join(texts(few))
    assert "250 nodes" in caption
    assert "the 10 most probable drawn" in caption
    assert f"{percent(shown_part(document(250), 10).covered)} of the model's answers follow a drawn path" in caption
    assert "all drawn" in " ".join(texts(draw_tree(document(250), max_nodes=250)))
    assert_everything_readable(few)


def test_the_longest_name_in_the_registry_fits():
    name = max((entry.name for entry in saes()), key=len)
    figure = draw_tree(document(settings={"sae": name}))
    assert_everything_readable(figure)
    assert name in "".join(texts(figure))


@pytest.mark.parametrize(
    "prompt",
    [
        'What, in the words of a dictionary, is the meaning of "{ghost}"? ' * 5,
        "THE MEANING OF THE WORD " * 12 + '"{ghost}" IS "',
        "W" * 400 + ' "{ghost}" "',
        "这个词的意思是什么" * 30 + '"{ghost}" "',
        "$x_{1}$ " * 50 + '"{ghost}" "',
    ],
    ids=["long", "capitals", "one word", "Chinese", "dollars"],
)
def test_any_prompt_fits(prompt):
    figure = draw_tree(document(settings={"prompt": prompt}), escaped=False)
    assert_everything_readable(figure)
    assert prompt.replace(" ", "") in "".join(texts(figure)).replace(" ", "")
    assert_everything_readable(draw_tree(document(settings={"prompt": prompt})))


def test_the_caption_holds_the_whole_recipe():
    caption = " ".join(texts(draw_tree(document())))
    for part in (
        "google/gemma-2b", "gemma-2b-res-jb/blocks.6.hook_resid_post", "feature 16383", "encoder weights", "bfloat16",
        "centroid + 3.80417", 'A typical definition of "{ghost}" would be "', "cutoff 5e-05", "top_k 7",
        "depth to 24", "at most 1999 nodes", "5 nodes", "sae-feature-multitool 0.1.0",
    ):  # fmt: skip
        assert part in caption
    assert "INCOMPLETE" not in caption
    all_of_them = " ".join(texts(draw_tree(document(settings={"top_k": 0}))))
    assert "cutoff 5e-05, all next tokens above it (top_k 0), depth to 24" in all_of_them


def test_settings_can_be_read_off_the_caption_exactly_and_results_are_rounded():
    settings = {"scale": 2.3882502123112013, "cutoff": 1.25e-6, "pca": [0.1, -12.5, 1 / 3]}
    vector = {"distance_from_centroid": 2.388250212, "mean_token_distance": 3}
    made = replace(document(settings=settings), vector=vector)
    caption = " ".join(texts(draw_tree(made)))
    scale = re.search(r"centroid \+ (\S+) ×", caption)[1]
    assert np.float32(scale) == np.float32(settings["scale"])
    assert len(scale) <= 11
    assert "cutoff 1.25e-06," in caption
    assert "components [0.1, -12.5, 0.333333333]" in caption
    assert "distance from centroid 2.388 (tokens: 3 on average)" in caption


def test_the_caption_holds_what_differs_from_the_default():
    settings = {"weights": "mix", "encoder_share": 0.35, "centroid": False, "pca": [0.2, -0.1], "stop": False}
    caption = " ".join(texts(draw_tree(document(settings=settings, effective_cutoff=0.0123, complete=False))))
    for part in (
        "mix weights", "0.35", "[0.2, -0.1]", "going on through closing quotes", "cutoff 0.0123", "INCOMPLETE",
    ):  # fmt: skip
        assert part in caption
    assert "centroid +" not in caption
    lifted = checked(document(30)).lifted(1.5)
    caption = " ".join(texts(draw_tree(lifted)))
    for part in (f"{len(lifted.tree)} nodes on branches with a lift of at least 1.5 nats", "colour: lift", "made up."):
        assert part in caption


def test_an_empty_tree_is_drawn_with_what_to_do():
    figure = draw_tree(document(5).trimmed(0.99))
    assert "Lower it" in " ".join(texts(figure))
    assert_everything_readable(figure)
    assert set(render(document(5).trimmed(0.99))) == set(FORMATS)


@pytest.mark.parametrize(("format", "magic"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_a_picture_is_of_the_format_that_was_asked_for(format, magic):
    assert render(document(30, words=HOSTILE), [format])[format].startswith(magic)


def svg_texts(source: bytes) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(source).iter("{http://www.w3.org/2000/svg}text")]


def test_an_svgs_text_is_text_and_nothing_in_it_is_markup():
    source = render(document(60, words=HOSTILE, branching=20), ["svg"], max_nodes=60)["svg"]
    found = " ".join(svg_texts(source))
    for word in ("$x$", "<script>alert(1)</script>", "&amp;", "\\alpha", "عربية", "עברית", "中文字符"):
        assert word in found, word
    assert b"<script" not in source
    assert ElementTree.fromstring(source).find(".//{http://www.w3.org/2000/svg}script") is None


def test_dollars_are_dollars_and_line_breaks_are_shown():
    words = tuple(f" ${n}$ a\n" for n in range(5))
    shown = " ".join(texts(draw_tree(document(5, words=words, branching=5))))
    assert any(f"${n}$ a\\n" in shown for n in range(5))
    assert "\n" not in shown


def test_a_very_long_phrase_is_cut_with_an_ellipsis():
    long = [text for text in texts(draw_tree(document(2, words=("x" * 200,)))) if "xxx" in text]
    assert long
    assert all(len(text) <= 60 and text.endswith("…") for text in long)


def pdf_texts(source: bytes) -> list[str]:
    """What the text blocks of a PDF show: strings are ASCII here, in one or in two bytes."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", source, re.DOTALL)
    found = []
    for stream in streams:
        try:
            content = zlib.decompress(stream)
        except zlib.error:  # not a compressed one
            continue
        for block in re.findall(rb"\nBT\n(.*?)\nET\n", content, re.DOTALL):
            strings = re.findall(rb"\(((?:\\.|[^\\()])*)\)", block, re.DOTALL)
            found.append(re.sub(rb"\\(.)", rb"\1", b"".join(strings)).replace(b"\0", b"").decode("latin-1"))
    return found


def test_a_pdfs_text_is_text_in_fonts_that_it_holds():
    source = render(document(30, words=(" barks", " (typically)", "中")), ["pdf"])["pdf"]
    assert source.count(b"/FontFile2") >= 2  # plain and bold
    assert b"/Type3" not in source
    found = pdf_texts(source)
    assert "gemma-2b-res-jb/blocks.6.hook_resid_post  ·  feature 16383" in found
    assert "(typically) barks" in found


ONE_FONT = ("DejaVu Sans",)  # what matplotlib brings along


def test_characters_without_a_font_are_drawn_as_escapes_and_the_others_as_they_are():
    words, settings = ("中文é", "🙂", "عربية", "हि"), {"sae": "文/é", "prompt": '"{ghost}" は "'}
    made = document(4, words=words, branching=4, settings=settings)
    shown = texts(draw_tree(made, fonts=ONE_FONT))
    for text in ("\\u4e2d\\u6587é", "\\U0001f642", "عربية", "\\u0939\\u093f"):
        assert text in shown
    assert "\\u6587/é  ·  feature 16383" in shown
    assert 'prompt: "{ghost}" \\u306f "' in shown
    assert set(words) | {'prompt: "{ghost}" は "'} <= set(texts(draw_tree(made, escaped=False, fonts=ONE_FONT)))


def test_an_svg_keeps_the_characters_that_other_formats_escape_in_any_order_of_formats():
    made = document(3, words=("中文",), branching=3)
    both, other = (render(made, formats, fonts=ONE_FONT) for formats in (["png", "svg", "pdf"], ["pdf", "svg"]))
    assert list(both) == ["png", "svg", "pdf"]
    assert both["svg"] == other["svg"]
    assert "中文" in svg_texts(both["svg"])
    assert both["pdf"] == other["pdf"]
    assert "\\u4e2d\\u6587" in pdf_texts(both["pdf"])


def test_a_long_phrase_of_escapes_is_cut_between_them():
    figure = draw_tree(document(1, words=("中" * 50,)), fonts=ONE_FONT)
    (long,) = [text for text in texts(figure) if "u4e2d" in text]
    assert long == "\\u4e2d" * 9 + "…"


def test_a_figure_is_drawn_once_where_fonts_have_all_characters(monkeypatch):
    drawn = []
    monkeypatch.setattr("multitool.pictures.figure.draw_tree", lambda *a, **b: drawn.append(b) or draw_tree(*a, **b))
    render(document(5), ["svg", "png", "pdf"])
    assert len(drawn) == 1


def settings_in(files: dict[str, bytes]) -> dict[str, dict]:
    """What the files' metadata tell, by format."""
    with Image.open(io.BytesIO(files["png"])) as picture:
        png = picture.info["Description"]
    svg = ElementTree.fromstring(files["svg"]).find(".//{http://purl.org/dc/elements/1.1/}description").text
    subject = re.search(rb"/Subject \(((?:\\.|[^\\])*?)\)\n", files["pdf"], re.DOTALL)[1]
    pdf = re.sub(rb"\\(.)", rb"\1", subject).decode("ascii")
    return {"png": json.loads(png), "svg": json.loads(svg), "pdf": json.loads(pdf)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prompt": '中文 🙂 \\ ) ("{ghost}" "', "sae": "é 中 (x\\", "scale": 2.3882502123112013},
        {"model": "]]>--><script>alert(1)</script>&amp;", "sae": "</title><!--", "own \0 \ufffe key": "\x1b[2J\r\n\0"},
    ],
    ids=["plain", "scripts", "markup"],
)
def test_the_exact_settings_are_in_the_files_metadata(settings):
    made = read_tree(replace(document(settings=settings), effective_cutoff=0.0123).to_json())
    files = render(made, max_nodes=3, dpi=50)
    for name, found in settings_in(files).items():
        assert found["settings"] == made.settings, name
        assert found["result"] == {"effective_cutoff": 0.0123, "complete": True, "drawn": 3}
    software = f"sae-feature-multitool {__version__}"
    with Image.open(io.BytesIO(files["png"])) as picture:
        assert picture.info["Software"] == software
        assert made.settings["sae"] in picture.info["Title"]
    assert f"/Creator ({software})".encode() in files["pdf"]
    assert software.encode() in files["svg"]
    assert b"/Title " in files["pdf"]
    assert b"<script" not in files["svg"]


@pytest.mark.parametrize("dpi", [49, 601, 0, -1, 72.5, True, "150", None, float("nan"), 10**400], ids=str)
def test_a_resolution_that_cannot_be_is_refused(dpi):
    with pytest.raises(UserError, match="^dpi is .*a whole number from 50 to 600"):
        render(document(5), ["svg"], dpi=dpi)


@pytest.mark.parametrize("max_nodes", [0, MOST_NODES + 1, "many"])
def test_a_number_of_nodes_that_cannot_be_is_refused(max_nodes):
    with pytest.raises(UserError, match=f"^max_nodes is .*from 1 to {MOST_NODES}"):
        render(document(5), ["svg"], max_nodes=max_nodes)


def test_a_png_has_the_resolution_asked_for_and_other_formats_do_not_care():
    sizes = {}
    for dpi in (50, 100):
        with Image.open(io.BytesIO(render(document(5), ["png"], dpi=dpi)["png"])) as picture:
            sizes[dpi] = picture.size
    assert np.allclose(np.array(sizes[100]) / sizes[50], 2, atol=0.02)
    assert render(document(5), ["svg"], dpi=600) == render(document(5), ["svg"], dpi=50)


def test_a_png_that_would_be_too_large_is_refused_with_the_resolution_that_is_valid():
    million = {"most_pixels": 1_000_000}
    with pytest.raises(UserError, match="^dpi is 600; for this picture of 6 by . inches valid is at most") as refused:
        render(document(5), ["png"], dpi=600, **million)
    most = int(re.search(r"at most (\d+)", str(refused.value))[1])
    with Image.open(io.BytesIO(render(document(5), ["png"], dpi=most, **million)["png"])) as picture:
        assert 0.9e6 < picture.width * picture.height <= 1e6
    with pytest.raises(UserError, match="dpi"):
        render(document(5), ["png"], dpi=most + 1, **million)
    assert render(document(5), ["svg"], dpi=600, **million)
    with pytest.raises(UserError, match="too large for a PNG. Draw fewer nodes"):
        render(document(5), ["png"], most_pixels=10_000)


def test_the_same_tree_gives_the_same_picture():
    assert render(document(20)) == render(document(20))


def test_no_file_tells_when_it_was_made(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    early = render(document(20))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "999999999")
    assert render(document(20)) == early


def test_a_dark_picture_is_dark_in_every_format():
    light, dark = render(document(20), dpi=50), render(document(20), dpi=50, dark=True)
    assert all(light[name] != dark[name] for name in FORMATS)
    with Image.open(io.BytesIO(dark["png"])) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (0x0F, 0x17, 0x2A)
    assert b"fill: #0f172a" in dark["svg"]


def test_pictures_drawn_at_the_same_time_are_those_drawn_alone():
    documents = [document(40, seed=seed) for seed in range(3)]
    alone = [render(one, ["png"], dpi=50) for one in documents]
    together: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda i=i: together.update({i: render(documents[i], ["png"], dpi=50)}))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == dict(enumerate(alone))


@pytest.mark.parametrize("words", [WORDS, HOSTILE], ids=["words", "hostile"])
def test_drawing_warns_of_nothing_on_the_terminal(words, capfd, recwarn):
    # Not even of characters that no font here has.
    render(document(30, words=words), ["png"], dpi=50)
    assert capfd.readouterr().err == ""
    assert not recwarn.list


@pytest.mark.parametrize(
    "settings",
    [
        dict.fromkeys(SETTINGS),
        {"sae": "x" * 10_000},
        {"scale": "wide", "cutoff": "low", "pca": "some", "feature": -1.5},
        {"prompt": "\n" * 5_000},
        {"scale": True, "cutoff": 0, "model": 5},
    ],
    ids=["nothing", "long", "words", "lines", "odd"],
)
def test_settings_that_somebody_made_up_are_drawn_without_harm(settings):
    made_up = read_tree(document(settings=settings).to_json())
    assert render(made_up, ["svg"])["svg"].startswith(b"<?xml")
    assert_everything_readable(draw_tree(made_up))
    assert render(made_up, ["pdf", "png"], dpi=50, dark=True)["pdf"].startswith(b"%PDF-")


def test_missing_settings_are_drawn_without_harm():
    bare = DefinitionTree(tree(5), {}, {}, 0.05, True, 0.0)
    assert_everything_readable(draw_tree(bare))


def test_nodes_of_no_probability_are_drawn_without_harm():
    no, ends = np.zeros(3), np.zeros(3, dtype=bool)
    zero = Tree(np.array([ROOT, 0, 0]), np.arange(3), ("a", "b", "c"), no, no, ends)
    nothing = DefinitionTree(zero, SETTINGS, VECTOR, 0.0, True, 0.0)
    assert_everything_readable(draw_tree(nothing))
