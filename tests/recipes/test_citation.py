"""What is cited, in each form that tools read."""

import re
from pathlib import Path

import yaml

from multitool import __version__
from multitool.recipes import citation

CFF = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_file_has_what_its_format_demands():
    assert CFF["cff-version"] == "1.2.0" and CFF["type"] == "software" and CFF["message"]
    assert CFF["authors"] and all("name" in author or "family-names" in author for author in CFF["authors"])
    allowed = {"cff-version", "message", "title", "type", "abstract", "authors", "version", "license", "keywords",
               "references"}
    assert CFF.keys() <= allowed
    for reference in CFF["references"]:
        assert {"type", "title", "authors"} <= reference.keys()


def test_the_citation_file_says_what_the_page_says():
    assert (CFF["title"], CFF["license"]) == (citation.NAME, f"{citation.LICENCE}-only")
    assert CFF["version"] == __version__, "the version moves in CITATION.cff too"
    method, = CFF["references"]
    author, = method["authors"]
    assert f"{author['given-names']} {author['family-names']}" == citation.METHOD.authors
    told = (method["title"], method["year"], method["url"], method["repository-code"])
    assert told == (citation.METHOD.title, citation.METHOD.year, citation.METHOD.url, citation.METHOD_NOTEBOOK.url)


def test_bibtex():
    assert citation.method_bibtex() == (
        "@misc{watkins2024definitiontrees,\n"
        "  title = {Exploring {SAE} features in {LLMs} with definition trees and token lists},\n"
        "  author = {Watkins, Matthew},\n  year = {2024},\n  howpublished = {LessWrong},\n"
        f"  url = {{{citation.METHOD.url}}}\n}}\n"
    )
    assert re.sub("[{}]", "", citation.method_bibtex()).count(citation.METHOD.title) == 1
    tool = citation.tool_bibtex("https://huggingface.co/spaces/me/mine")
    assert f"note = {{Version {__version__}}}" in tool and "url = {https://huggingface.co/spaces/me/mine}" in tool
    assert "url" not in citation.tool_bibtex()
    assert tool.count("{") == tool.count("}")


def test_references_are_told_once_and_by_safe_addresses():
    urls = [reference.url for reference in (citation.METHOD, citation.METHOD_NOTEBOOK, *citation.BUILT_UPON)]
    assert len(set(urls)) == len(urls) and all(url.startswith("https://") for url in urls)
    assert all(reference.of for reference in citation.BUILT_UPON)
