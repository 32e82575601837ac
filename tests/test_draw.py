"""Pictures of trees: nothing overlaps, nothing leaves the picture, and the recipe can be read off it."""

import threading
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from multitool.document import DefinitionTree, read_tree
from multitool.draw import FORMATS, draw_tree, render
from multitool.registry import saes
from multitool.tree import ROOT, Tree

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


@pytest.mark.parametrize("branching", [1, 10, 40], ids=["thin", "bushy", "broad"])
def test_trees_of_other_shapes_are_readable_too(branching):
    assert_everything_readable(draw_tree(document(80, branching=branching), max_nodes=80))


def test_only_the_most_probable_nodes_are_drawn_and_the_caption_says_how_many():
    few, many = draw_tree(document(250), max_nodes=10), draw_tree(document(250), max_nodes=200)
    assert len(few.texts) < len(many.texts)
    assert "250 nodes, the 10 most probable drawn" in " ".join(texts(few))
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
    figure = draw_tree(document(settings={"prompt": prompt}))
    assert_everything_readable(figure)
    assert prompt.replace(" ", "") in "".join(texts(figure)).replace(" ", "")


def test_the_caption_holds_the_whole_recipe():
    caption = " ".join(texts(draw_tree(document())))
    for part in (
        "google/gemma-2b", "gemma-2b-res-jb/blocks.6.hook_resid_post", "feature 16383", "encoder weights", "bfloat16",
        "centroid + 3.80417", 'A typical definition of "{ghost}" would be "', "cutoff 5e-05", "top_k 7",
        "depth to 24", "at most 1999 nodes", "5 nodes",
    ):  # fmt: skip
        assert part in caption


def test_the_caption_holds_what_differs_from_the_default():
    settings = {"weights": "mix", "encoder_share": 0.35, "centroid": False, "pca": [0.2, -0.1], "stop": False}
    caption = " ".join(texts(draw_tree(document(settings=settings, effective_cutoff=0.0123, complete=False))))
    for part in (
        "mix weights", "0.35", "[0.2, -0.1]", "going on through closing quotes", "cutoff 0.0123", "INCOMPLETE",
    ):  # fmt: skip
        assert part in caption
    assert "centroid +" not in caption


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


def test_the_same_tree_gives_the_same_picture():
    assert render(document(20), ["png"]) == render(document(20), ["png"])


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


def test_missing_settings_are_drawn_without_harm():
    bare = DefinitionTree(tree(5), {}, {}, 0.05, True, 0.0)
    assert_everything_readable(draw_tree(bare))


def test_nodes_of_no_probability_are_drawn_without_harm():
    no, ends = np.zeros(3), np.zeros(3, dtype=bool)
    zero = Tree(np.array([ROOT, 0, 0]), np.arange(3), ("a", "b", "c"), no, no, ends)
    nothing = read_tree(DefinitionTree(zero, SETTINGS, VECTOR, 0.0, True, 0.0).to_json())
    assert_everything_readable(draw_tree(nothing))
