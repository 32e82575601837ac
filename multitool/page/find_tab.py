"""The tab that finds features: by a word, a text, another feature, or what an atlas says of them.

A row that is chosen brings that feature's tree: the tree's tab takes it from here.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from multitool.errors import UserError
from multitool.jobs.find import FoundFeatures
from multitool.page.common import LATEST, PRIVATE, QUIETLY, as_number, counted, event, pick, status_line
from multitool.page.found_html import choosable, feature_table, text_tokens
from multitool.page.result import Result, Views
from multitool.page.service import LONGEST_TEXT, Service
from multitool.page.vector_controls import SUITING, VectorControls
from multitool.page.view import FIND, View
from multitool.recipes.atlas import AtlasSearch
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.fields import check, recipe_fields, written
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.recipe import VectorRecipe
from multitool.recipes.weighted_sums import token_terms
from multitool.text import visible

Search = TokenSearch | TextSearch | LikenessSearch | AtlasSearch

WHAT_FITS = "fits"
# Each with its name and what it does.
WAYS = {
    WHAT_FITS: ("what fits", "A word, or a sum of words: the features nearest to it. A number: the features most like "
                "that one. Anything else is read as a text"),
    "tokens": ("word", "A word, or a sum of words, as it stands among the model's embeddings; exact tokens in double "
               "quotes"),
    "text": ("text", f"The model reads it, and the SAE tells which features fire; up to {LONGEST_TEXT:,} characters"),
    "like": ("likeness", "The number of a feature: the features that look for the same, or write the same"),
    "atlas": ("descriptions", "Words in what is known of features: their definitions, and the tokens that fire them. "
              "Without words: all features, those with the best evidence first"),
}
EXAMPLES = ("rain", "king - man + woman", "The soldiers were sent to prison.")
_NOTHING_ASKED = "There is nothing to find features by. Write a word, a text, or a feature's number above."
_ORDERS = [("nearest to it", "cosine"), ("fires most on it alone", "activation")]
_ANY = "any"
_ENTROPY, _COSINE = "Entropy at most", "Cosine at least"
_VERDICTS = [(_ANY, _ANY), ("agrees in part", "partly"), ("agrees", "agrees")]
_ENTROPIES, _COSINES = [_ANY, "3", "4", "5", "6"], [_ANY, "0.9", "0.7", "0.5", "0.3"]
_FOCUS = "() => { const box = document.querySelector('#find-by textarea'); if (box && !box.value) box.focus(); }"
# On a phone what is found stands below all that is seen.
_INTO_VIEW = (
    "() => { const top = document.querySelector('#find-title p, #find-status'); "
    "if (top.getBoundingClientRect().bottom > innerHeight - 150) top.scrollIntoView(); }"
)


@dataclass(frozen=True)
class FindTab:
    """What the tree's tab takes a chosen feature from, by ``row_chosen``."""

    table: gr.HTML  # its event ``select`` tells the ``number`` of a row
    states: dict[str, gr.State]  # what was found, and of which token of a text


def find_tab(
    service: Service, controls: VectorControls, tabs: gr.Tabs, tab: gr.Tab, views: Views
) -> FindTab:
    """Build the tab and wire it to the controls.

    Args:
        tabs: of which this is one,
        tab: this one.
    """
    with gr.Row(elem_id="find-row"):
        words = gr.Textbox(
            "", label="Find features by a word, a text, or the number of a feature", placeholder="Try “rain”", lines=1,
            max_lines=8, max_length=LONGEST_TEXT, elem_id="find-by", scale=4, min_width=220,
        )
        find = gr.Button("Find", variant="primary", scale=0, min_width=120, elem_id="find")
    with gr.Row(elem_classes="examples"):
        gr.Markdown("Examples")
        examples = [gr.Button(example, size="sm", min_width=60) for example in EXAMPLES]
    way = gr.Radio(
        [(name, way) for way, (name, _) in WAYS.items()], value=WHAT_FITS, label="By", info=WAYS[WHAT_FITS][1],
        elem_id="find-way",
    )
    details, rows = _details()
    result = Result(
        "find", {"sae": controls.fields["sae"], "words": words, "way": way, **details}, search_asked, _nothing,
        view=View(
            FIND, partial(_told, details), partial(_values, service, views.opening, details), "found", "Find", _leads
        ),
        views=views, link="Link to these features",
    )
    status = status_line("find-status", "Nothing found yet.")
    shown = {"tokens": choosable("find-tokens"), "table": choosable("found")}
    states = {"found": gr.State(), "token": gr.State()}
    result.place_link()

    def of_way(way: str) -> dict:
        seen: dict[str, Any] = {name: gr.update(visible=name == way) for name in rows}
        return {"way": gr.update(info=WAYS[way][1]), **seen}

    way.change(**event(of_way, {"way": way}, {"way": way, **rows}, **QUIETLY))
    number = {"feature": controls.fields["feature"], "way": way, "words": words}
    way.input(**event(_with_number, number, words, **LATEST))
    finding = event(
        _only_beside(result.making(partial(_found, service))), result.takes,
        {"status": status, **shown, **states, **result.gives}, shelf=service.shelf, show_progress="hidden",
        **counted(service.callers),
    )
    filled = [
        button.click(lambda example=example: (example, WHAT_FITS), None, [words, way], **QUIETLY).then
        for button, example in zip(examples, EXAMPLES, strict=True)
    ]
    result.refusing({"status": status, **shown, **states}, shelf=service.shelf)
    for trigger in (find.click, words.submit, result.asked.change, *filled):
        found = trigger(**finding)
        found.then(None, js=_INTO_VIEW, **PRIVATE)

    def token_chosen(chosen: gr.EventData, found: FoundFeatures | None) -> dict:  # Gradio knows what by the annotation
        return _token_chosen(service, found, chosen.number)

    shown["tokens"].select(**event(
        token_chosen, pick(states, ("found",)), {**shown, "token": states["token"]}, shelf=service.shelf,
        trigger_mode="always_last", show_progress="hidden", **counted(service.light_callers),
    ))
    controls.find.click(lambda: gr.Tabs(selected=FIND), None, tabs, **QUIETLY).then(None, js=_FOCUS, **PRIVATE)
    tab.select(None, js=_FOCUS, **PRIVATE)
    return FindTab(shown["table"], states)


def _details() -> tuple[dict[str, Component], dict[str, gr.Row]]:
    """What is asked besides, by name; and the rows that it stands in, by the ways that it counts with."""
    rows = {}
    with gr.Row(visible=False) as rows["tokens"]:
        kinds = [("what suits lists", SUITING), *((kind, kind) for kind, made in DIRECTIONS.items() if made.of_feature)]
        details: dict[str, Component] = {
            "measure": gr.Radio(_ORDERS, value="cosine", label="Order by", elem_id="find-measure",
                                info="By the weights alone, or by what a single token fires"),
            "weights": gr.Dropdown(kinds, value=SUITING, label="A feature's direction", elem_id="find-weights",
                                   info="What is compared with the word, as in token lists"),
        }
    with gr.Row(visible=False) as rows["like"]:
        details |= {
            "by": gr.Radio(["decoder", "encoder"], value="decoder", label="Compare", elem_id="find-compared",
                           info="Decoder: what features write; encoder: what they look for"),
        }
        with gr.Column(min_width=160):
            details["others"] = gr.Checkbox(True, label="In other SAEs too", elem_id="find-others",
                                            info="Those of the same model that need no download")
    with gr.Row(visible=False) as rows["atlas"]:
        details |= {
            "verdict": gr.Radio(_VERDICTS, value=_ANY, label="Evidence", elem_id="find-verdict", scale=2, min_width=280,
                                info="Do its definitions fire it? At least"),
            "max_entropy": gr.Dropdown(_ENTROPIES, value=_ANY, label=_ENTROPY, allow_custom_value=True,
                                       info="Of the first token, in nats", elem_id="find-entropy", min_width=150),
            "min_cosine": gr.Dropdown(_COSINES, value=_ANY, label=_COSINE, allow_custom_value=True,
                                      info="Of encoder and decoder", elem_id="find-cosine", min_width=150),
        }
        with gr.Column(min_width=160):
            details["only"] = gr.Checkbox(False, label="Only this SAE", elem_id="find-only",
                                          info="Otherwise everything in the atlas")
    return details, rows


def _with_number(way: str, words: str, feature: str):
    """For likeness the feature that the controls show, where no number is typed."""
    return feature if way == "like" and not _is_number(words) and _is_number(feature) else gr.skip()


def _is_number(words: str) -> bool:
    return re.fullmatch(r"\s*[0-9]{1,15}\s*", words) is not None


def search_asked(
    *, sae: str, words: str, way: str, measure: str, weights: str, by: str, others: bool, verdict: str, max_entropy,
    min_cosine, only: bool,
) -> tuple[Search, ...]:
    """What the controls ask for, and what to try if that finds nothing; none of it if they ask for nothing. Of the
    details only those of the way that is chosen count.

    Raises:
        UserError: it cannot be.
    """
    words = words.strip()
    if not words and way != "atlas":
        return ()
    match way:
        case "tokens":
            kind = None if weights == SUITING else weights
            return (TokenSearch(sae=sae, tokens=words, weights=kind, measure=measure),)
        case "text":
            return (TextSearch(sae=sae, text=words),)
        case "like":
            if not _is_number(words):
                raise UserError("To find features by likeness, write the number of one above, such as 927.")
            return (LikenessSearch(sae=sae, feature=int(words), by=by, among=() if others else (sae,)),)
        case "atlas":
            return (AtlasSearch(
                words=words, sae=sae if only else None, verdict=None if verdict == _ANY else verdict,
                max_entropy=_limit(max_entropy, "max_entropy", _ENTROPY),
                min_cosine=_limit(min_cosine, "min_cosine", _COSINE),
            ),)
    return _fitting(sae, words)


def _fitting(sae: str, words: str) -> tuple[Search, ...]:
    """What is probably meant by words that come without a way."""
    if _is_number(words):
        return (LikenessSearch(sae=sae, feature=int(words)),)
    try:
        terms = token_terms(words)
    except UserError:
        return (TextSearch(sae=sae, text=words),)
    # A lone word may be several tokens; then it is a text.
    is_word = len(terms) == 1 and terms[0].text == words
    return (TokenSearch(sae=sae, tokens=words), *([TextSearch(sae=sae, text=words)] if is_word else []))


def _told(details: Mapping[str, Component], *, sae: str, words: str, way: str, **values) -> dict[str, str]:
    search_asked(sae=sae, words=words, way=way, **values)
    chosen = {"way": (way, WHAT_FITS)} | {name: (values[name], control.value) for name, control in details.items()}
    return {"sae": sae, "find": words.strip()} | {
        name: written(value) for name, (value, usual) in chosen.items() if value != usual
    }


def _values(
    service: Service, opening: VectorRecipe, details: Mapping[str, Component], parameters: Mapping[str, str]
) -> dict:
    """Everything that counts with a link, as it stands there or else as usual. The words of a link without any stay."""
    sae = parameters.get("sae", opening.sae)
    service.library.find(sae)
    usual = {"way": WHAT_FITS} | {name: control.value for name, control in details.items()}
    said = {
        name: value if name not in parameters else parameters[name] == "true" if isinstance(value, bool)
        else parameters[name] for name, value in usual.items()
    }
    return {"sae": sae, **({"words": parameters["find"], **said} if "find" in parameters else {})}


def _leads(parameters: Mapping[str, str]) -> bool:
    return "find" in parameters


def _limit(chosen: str, name: str, label: str) -> Any:
    """A field of the search, refused by its label on the page."""
    kind = next(field.kind for field in recipe_fields(AtlasSearch) if field.name == name)
    return None if chosen == _ANY else check(as_number(chosen), label, kind)


def _nothing(status: str) -> dict:
    return {"status": status, "tokens": "", "table": "", "found": None, "token": None, "title": ""}


def _only_beside(finding: Callable[..., Iterator[dict]]) -> Callable[..., Iterator[dict]]:
    """The handler with its errors told where the answer would be alone: in the corner they would hide what is to be
    corrected."""

    def handler(**values):
        with contextlib.suppress(UserError):
            yield from finding(**values)

    return handler


def _found(service: Service, *searches: Search):
    """The features; until they are found, in words what is being waited for.

    Args:
        searches: to be tried one after another.
    """
    if not searches:
        yield _nothing(_NOTHING_ASKED)
        return
    yield {"status": "Starting …"}
    search, *others = searches
    try:
        yield from _answers(service, search)
    except UserError:
        if not others:
            raise
        for answer in _answers(service, others[0]):
            if "found" in answer:
                answer["status"] = "This word is no single token, so it was read as a text. " + answer["status"]
            yield answer


def _answers(service: Service, search: Search) -> Iterator[dict]:
    for answer in _searched(service, search):
        if isinstance(answer, str):
            yield {"status": answer}
        else:
            yield {
                "status": visible(answer.sentence), "tokens": text_tokens(answer), "table": feature_table(answer),
                "found": answer, "token": None, "title": _title(search),
            }


def _searched(service: Service, search: Search) -> Iterator[str | FoundFeatures]:
    match search:
        case TokenSearch():
            return service.found_by_tokens(search)
        case TextSearch():
            return service.found_by_text(search)
        case LikenessSearch():
            return service.found_like(search)
    return service.found_in_atlas(search)


def _title(search: Search) -> str:
    match search:
        case TokenSearch():
            return f"{search.sae} · near to {search.tokens}"
        case TextSearch():
            return f"{search.sae} · what fires on “{search.text}”"
        case LikenessSearch():
            return f"{search.sae} · like feature {search.feature}"
        case _:
            return f"Descriptions · {search.words or 'all'}"


def _token_chosen(service: Service, found: FoundFeatures | None, number) -> dict:
    """What fires at a token of the text that features were found by; or, of another number, on the whole of it."""
    if found is None or not _is_place(number, found.tokens):
        return {"tokens": text_tokens(found), "table": feature_table(found), "token": None}
    part = found
    for answer in service.fires_at(found, number):
        part = part if isinstance(answer, str) else answer
    return {"tokens": text_tokens(found, number), "table": feature_table(part), "token": number}


def row_chosen(found: FoundFeatures | None, token: int | None, number) -> tuple[str, int]:
    """SAE and number of the feature in a row of the table. Raises UserError if the row is not there any more.

    Args:
        token: the one of a text that is chosen, as ``FindTab.states`` holds it.
        number: of the row; from a browser, so it may be anything.
    """
    if found is not None and token is None and _is_place(number, found.features):
        return found.features[number].sae, found.features[number].feature
    if found is not None and token is not None and _is_place(number, found.tokens[token].features):
        return found.settings["sae"], found.tokens[token].features[number][0]
    raise UserError("This row is not there any more. Press “Find” once more.")


def _is_place(number: Any, there: Sequence) -> bool:
    return isinstance(number, int) and 0 <= number < len(there)
