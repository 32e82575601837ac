"""Tables to paste: whatever would act in a format is escaped, nothing is lost, and numbers have three digits."""

import ast
import io
import json

import csv_files
import pandas as pd
import pytest

from multitool.recipes.tables import pasted, python_list, three_digits
from multitool.text import csv_table

COLUMNS = ("rank", "token", "score")


def one(kind: str, token: str, **options) -> str:
    """The row of a table with a single token."""
    return pasted(COLUMNS, [[1, token, 0.5]], "A title", **options)[kind].rows[0]


@pytest.mark.parametrize(
    ("number", "told"),
    [(0.0123456, "0.0123"), (0.5, "0.500"), (12.0, "12.0"), (9.999, "10.0"), (99.96, "100"), (1234.5, "1230"),
     (999999.0, "1.00e+06"), (1e-4, "0.000100"), (1.234e-5, "1.23e-05"), (-0.5, "-0.500"), (0.0, "0"),
     (float("nan"), ""), (float("inf"), "")],
)  # fmt: skip
def test_three_digits(number, told):
    assert three_digits(number) == told


@pytest.mark.parametrize(
    ("token", "told"),
    [(" rain", "␣rain"), ("  ", "␣␣"), ("a|b", r"a\|b"), ("a\\b", r"a\\b"), ("*_`~", r"\*\_\`\~"), ("<b>", r"\<b\>"),
     ("[x]", r"\[x\]"), ("a\nb", r"a\\nb"), ("日本", "日本"), ("\\xe2\\x80", r"\\xe2\\x80"), ("\u202e", r"\\u202e"),
     ("$x$", r"\$x\$"), ("&amp;", r"\&amp;"), ("", "")],
)  # fmt: skip
def test_markdown(token, told):
    assert one("Markdown", token) == f"| 1 | {told} | 0.500 |"


def test_a_table_in_markdown():
    table = pasted(COLUMNS, [[1, " a", 0.25], [2, "b", None]], "demo/hook_embed feature 9")["Markdown"]
    assert table.text() == (
        "demo/hook\\_embed feature 9\n\n| rank | token | score |\n| ---: | :--- | ---: |\n"
        "| 1 | ␣a | 0.250 |\n| 2 | b |  |\n"
    )


@pytest.mark.parametrize(
    ("token", "told"),
    [(" rain", r"\textvisiblespace{}rain"), ("50%", r"50\%"), ("a_b^c", r"a\_b\textasciicircum{}c"),
     ("#1 & $2", r"\#1 \& \$2"),
     ("{~}", r"\{\textasciitilde{}\}"), ("\\n", r"\textbackslash{}n"), ("\n", r"\textbackslash{}n"), ("a--b", "a-{}-b"),
     ("---", "-{}-{}-"), ("<|>", r"\textless{}\textbar{}\textgreater{}"), ('"', r"\symbol{34}"), ("é ö ł", "é ö ł"),
     ("日本x", r"\beyondpdflatex{日本}{U+65E5 U+672C}x"), ("\\xe2", r"\textbackslash{}xe2")],
)  # fmt: skip
def test_latex(token, told):
    assert one("LaTeX", token) == rf"1 & \texttt{{{told}}} & 0.500 \\"
    assert one("LaTeX", token, prose=True) == rf"1 & {told} & 0.500 \\"


def test_a_table_in_latex_needs_no_package():
    table = pasted(("rank", "the_token", "score"), [[1, "a", -0.25], [2, "b", 1.5e-7]], "On 50%\nof it")["LaTeX"]
    assert table.text() == (
        "% On 50%\\nof it\n\\begin{tabular}{rlr}\n\\hline\nrank & the\\_token & score \\\\\n\\hline\n"
        "1 & \\texttt{a} & $-0.250$ \\\\\n2 & \\texttt{b} & $1.50\\times10^{-7}$ \\\\\n\\hline\n\\end{tabular}\n"
    )
    assert r"{p{0.6\linewidth}r}" in pasted(("d", "p"), [["a sentence", 0.1]], "", prose=True)["LaTeX"].head
    other = pasted(COLUMNS, [[1, "日", 0.1]], "")["LaTeX"].text()
    assert other.index(r"\providecommand*{\beyondpdflatex}[2]") < other.index(r"\begin{tabular}")


def test_a_table_in_csv_has_a_header_and_exact_texts():
    text = pasted(COLUMNS, [[1, ' "a,\n#', 0.123456], [2, "b", 1e-9]], "A title")["CSV"].text()
    assert csv_files.read(text) == ({}, [list(COLUMNS), ["1", ' "a,\n#', "0.123"], ["2", "b", "1e-09"]])


def test_a_python_list_is_on_one_line_as_the_published_tool_shows_it():
    assert python_list(["de", "DE", " de", "де", "デ", ":✨"]).text() == "['de', 'DE', ' de', 'де', 'デ', ':✨']"
    tokens = ["it's", '"', "\\", "\n", "\u2028", "\\xe2\\x80", " ", ""]
    text = pasted(COLUMNS, [[n, token, 0.1] for n, token in enumerate(tokens)], "")["Python list"].text()
    assert ast.literal_eval(text) == tokens
    assert len(text.splitlines()) == 1


def test_the_first_rows_can_be_had_alone():
    rows = [[n, f"t{n}", 0.1] for n in range(5)]
    table = pasted(COLUMNS, rows, "")
    assert table["Python list"].text(2) == "['t0', 't1']"
    assert table["CSV"].text(1).count("\n") == 2
    assert table["LaTeX"].text(3) == pasted(COLUMNS, rows[:3], "")["LaTeX"].text()


# Files

HOSTILE = ["#", " # x", "\n# c: 1", "a\r\nb", "\r", '"#"', "null", "NA", "nan", "", ",", "日本", "\u2028", "'",
           "\\xe2\\x80"]
RECIPE = {"sae": "a/b", "prompt": 'A "{ghost}" # is "\n\r\u2028\x85', "pca": [0.1, 1 / 3], "centroid": True,
          "answer": None, "vector": {"norm": 2.3882502123112013}, "key\n# \u2028": "日本"}


def test_a_csv_file_carries_its_recipe_and_pandas_reads_it_even_where_tokens_are_comment_signs(tmp_path):
    rows = [[n, token, 1 / (n + 3)] for n, token in enumerate(HOSTILE)]
    text = csv_table(COLUMNS, rows, RECIPE)
    file = tmp_path / "list.csv"
    file.write_bytes(text.encode())
    table = pd.read_csv(file, comment="#", keep_default_na=False)
    assert list(table.columns) == list(COLUMNS)
    assert table["token"].tolist() == HOSTILE
    assert table["score"].tolist() == [row[2] for row in rows], "numbers are exact"
    recipe, (header, *read) = csv_files.read(text)
    assert header == list(COLUMNS) and [row[1] for row in read] == HOSTILE
    assert list(recipe.values()) == list(json.loads(json.dumps(RECIPE)).values())
    assert len([line for line in io.StringIO(text, newline="") if line.startswith("# ")]) >= len(RECIPE)
    head = text[: text.index('"rank"')]
    assert len(head.splitlines()) == len(RECIPE), "a recipe's line breaks are escaped, whichever they are"


def test_without_a_recipe_a_csv_file_is_a_plain_table():
    assert csv_table(("a",), [["x"], ["#"]]) == '"a"\n"x"\n"#"\n'
