"""What can be asked: the menu, chats by a model's own template, several prompts in one go."""

import json
import sys
import threading
import time
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from plain_recursion import PlainRecursion, assert_same_tree, cutoff_after, safe_cut, trimmed
from tiny import RunningSubject, byte_level_tokenizer, sentencepiece_tokenizer, tiny_subject
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from multitool.errors import UserError
from multitool.jobs.local import trees_of_prompts
from multitool.model.ghost_prompt import ghost_prompt, in_chat
from multitool.model.subject import tokens_meant
from multitool.model.tasks import growth_task
from multitool.model.time_limit import TookTooLongError, time_limit
from multitool.page.tree_views import comparison_line
from multitool.pictures.explorer import standalone
from multitool.recipes.prompts import PLAIN_PROMPTS, PROMPTS
from multitool.recipes.recipe import DEFAULT_PROMPT, TreeRecipe, VectorRecipe, recipes
from multitool.trees.comparison import compare_trees
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.growth import grow
from multitool.trees.tree import NO_TREE

TEMPLATE = (
    "<|endoftext|>{% for said in messages %}{{ said.role }}: {{ said.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
QUESTION, ANSWER = 'What is "{ghost}"?', 'It is "'


def in_chats(subject: RunningSubject, template: str | None = TEMPLATE) -> RunningSubject:
    """The same model with a chat template."""
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = template
    return RunningSubject(subject.model, tokenizer, "tiny")


@pytest.fixture
def llama(tokenizer):
    return tiny_subject("llama", tokenizer)


# The menu


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_of_the_menu_is_taken_by_its_name_and_ends_with_an_open_quote(name):
    named, recipe = PROMPTS[name], TreeRecipe(prompt=name)
    assert (recipe.prompt, recipe.chat, recipe.answer) == (named.prompt, named.chat, named.answer)
    assert recipe.closing_quote == '"'
    assert recipe == TreeRecipe(prompt=named.prompt, chat=named.chat, answer=named.answer), "nothing tells the name"


def test_the_menu_begins_with_the_published_prompt_and_has_one_for_every_need():
    assert list(PROMPTS)[:5] == ["definition", "meaning", "example", "synonym", "category"]
    assert PROMPTS["definition"].prompt == DEFAULT_PROMPT
    assert PROMPTS["meaning"].prompt == 'The meaning of "{ghost}" is "'
    assert list(PLAIN_PROMPTS) == list(PROMPTS)[:5]


def test_ones_own_chat_and_answer_count_before_the_menus():
    own = TreeRecipe(prompt="chat-meaning", answer="A ")
    assert (own.prompt, own.chat, own.answer) == (PROMPTS["chat-meaning"].prompt, True, "A ")
    assert TreeRecipe(prompt="meaning", chat=True).chat


# What can be


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": QUESTION, "answer": ANSWER}, "answer is 'It is \"', and chat is off"),
        ({"prompt": "What is it?", "chat": True}, "0 times"),
        ({"prompt": QUESTION, "chat": True, "answer": '{ghost} is "'}, "2 times"),
        ({"prompt": "What?", "answer": '"{ghost}" is "'}, "Turn chat on"),
        ({"prompt": QUESTION, "chat": "yes"}, "chat is 'yes'; it must be true or false"),
        ({"prompt": QUESTION, "chat": True, "answer": None}, "answer is None; it must be a text"),
        ({"prompt": "meanings"}, "the menu: definition, meaning"),
    ],
)
def test_a_prompt_and_an_answer_that_cannot_be_are_refused(settings, said):
    with pytest.raises(UserError) as refused:
        TreeRecipe(**settings)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "quote"),
    [
        ({"prompt": 'A "{ghost}" is "'}, '"'),
        ({"prompt": "„{ghost}“?", "chat": True, "answer": "Es heißt „"}, "“"),
        ({"prompt": "What?", "chat": True, "answer": "«{ghost}»: «"}, "»"),
        # What the user says is over before the model goes on.
        ({"prompt": 'Define "{ghost}"', "chat": True}, None),
    ],
)
def test_the_quote_that_closes_is_the_one_left_open_where_the_model_goes_on(settings, quote):
    assert TreeRecipe(**settings).closing_quote == quote
    assert DefinitionTree(NO_TREE, settings, {}, 0.05, True, 0.0).closing_quote == quote


# Chats


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        (QUESTION, ANSWER, '<|endoftext|>user: What is "OSS"?\nassistant: It is "'),
        ("What is it?", '"{ghost}" is "', '<|endoftext|>user: What is it?\nassistant: "OSS" is "'),
    ],
    ids=["asked", "answered"],
)
def test_the_tree_of_a_chat_is_that_of_the_plain_recursion(subject, architecture, prompt, answer, text):
    chatting = in_chats(subject)
    token_ids = chatting.tokenizer(text, add_special_tokens=False)["input_ids"]
    place = token_ids.index(chatting.tokenizer.convert_tokens_to_ids("OSS"))
    v = subject.space.E[77].float() * 1.5
    recipe = TreeRecipe(prompt=prompt, chat=True, answer=answer, top_k=3, cutoff=4e-3, max_depth=4)
    task = growth_task(chatting, v, recipe)
    assert (list(task.prompt.token_ids), task.prompt.position) == (token_ids, place)
    assert task.ends[chatting.tokenizer.convert_tokens_to_ids('"')]

    ends = np.flatnonzero(task.ends)
    everything = PlainRecursion(subject.model, token_ids, place, v).tree(top_k=3, cutoff=4e-3, max_depth=4, ends=ends)
    cutoff = cutoff_after(everything, safe_cut(everything, len(everything) // 2, len(everything) - 1))
    source = chatting.next_tokens(task.prompt, v, task.top_k, task.max_depth)
    *_, grown = grow(source, cutoff=cutoff, max_depth=task.max_depth, max_nodes=task.max_nodes, ends=task.ends)
    assert grown.tree.depth.max() > 1
    # Qwen3.5's linear layers have one formula for a whole text and another for one more token.
    assert_same_tree(grown.tree, trimmed(everything, cutoff), 1e-4 if architecture == "qwen3_5" else 1e-5)


def test_a_beginning_of_text_is_left_to_the_chat_template():
    tokenizer = sentencepiece_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.chat_template = "<s>{{ messages[0].content }}a"
    chatting = tiny_subject("llama", tokenizer)
    told = ghost_prompt(chatting, '"{ghost}"', 5, chat=True, answer='"')
    assert tokenizer.convert_ids_to_tokens(list(told.token_ids)) == ["<s>", '"', "X", '"', "a", '"']


def test_a_template_may_take_blanks_off_what_the_user_says_but_not_off_the_answer(llama):
    assert in_chat(in_chats(llama), " {ghost} ", ' "').endswith('user: {ghost}\nassistant:  "')


@pytest.mark.parametrize(
    ("how", "told"),
    [("%d %b %Y", "26 Jul 2024"), ("%Y-%m-%d", "2024-07-26"), ("%A, %B %-d", "Friday, July 26")],
)
def test_a_template_that_tells_the_date_makes_the_same_prompt_on_any_day(llama, how, told):
    assert date(2024, 7, 26).strftime(how) == told
    asking = "{% if strftime_now is defined %}{% set today = strftime_now('" + how + "') %}{% endif %}"
    dated = in_chats(llama, "\n" + asking + "Today is {{ today }}. {{ messages[0].content }}")
    assert in_chat(dated, "{ghost}", "") == f"\nToday is {told}. {{ghost}}"


# A model that thinks first

_ASKED = "{% for said in messages %}<{{ said.role }}>{{ said.content }}{% endfor %}"
_HARMONY = (
    "{%- for said in messages %}{{ '<|start|>' + said.role + '<|message|>' + said.content + '<|end|>' }}"
    "{#- <|channel|>final<|message|> -#}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "before"),
    [
        (_ASKED + "<assistant>", "<assistant>"),  # Qwen3's: nothing is opened
        (_ASKED + "<｜Assistant｜><think>\n", "<｜Assistant｜><think>\n\n</think>\n\n"),  # DeepSeek-R1-Distill's
        (_ASKED + "<assistant><think>", "<assistant><think>\n\n</think>\n\n"),
        (_ASKED + "<seed:think>\n", "<seed:think>\n\n</seed:think>\n\n"),
        (_ASKED + "[THINK]", "[THINK]\n\n[/THINK]\n\n"),
        # Qwen3.5's, with a way of its own to leave it out
        (_ASKED + "<assistant>{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
         "{% else %}<think>\n{% endif %}", "<assistant><think>\n\n</think>\n\n"),
        (_ASKED + "{% if thinking is defined and not thinking %}</think>{% else %}<think>{% endif %}", "</think>"),
        (_HARMONY, "<|start|>assistant<|channel|>final<|message|>"),  # gpt-oss'
        (_ASKED.replace("<{{", "<|start|>{{") + "<|start|>assistant", "<|start|>assistant"),  # without channels
    ],
)
def test_an_answer_stands_outside_of_what_the_model_thinks_and_in_the_final_channel(llama, template, before):
    text = in_chat(in_chats(llama, template), QUESTION, ANSWER)
    assert text.partition(QUESTION)[2].removeprefix("<|end|>") == before + ANSWER


def test_what_the_user_says_about_thinking_is_left_alone(llama):
    assert in_chat(in_chats(llama, "{{ messages[0].content }}!"), '<think> "{ghost}"', "").endswith('"{ghost}"!')


def test_a_chat_template_that_runs_for_ever_is_ended(llama):
    loops = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{{ messages[0].content }}"
    before = sys.gettrace()
    with pytest.raises(UserError, match=r"did not come to its end in 0\.05 seconds\. Use another model"):
        in_chat(in_chats(llama, loops), QUESTION, ANSWER, seconds=0.05)
    assert sys.gettrace() is before
    assert in_chat(in_chats(llama), QUESTION, ANSWER), "the next one has its own time"


def test_the_time_limit_holds_in_any_thread_and_for_that_thread_alone():
    ended = {}

    def busy(until: float) -> None:
        while time.monotonic() < until:
            pass

    def work(seconds: float) -> None:
        try:
            with time_limit(seconds):
                busy(time.monotonic() + 0.2)
            ended[seconds] = "whole"
        except TookTooLongError:
            ended[seconds] = "ended"

    threads = [threading.Thread(target=work, args=(seconds,)) for seconds in (0.02, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == {0.02: "ended", 60: "whole"}


# Tokens without an embedding


def with_more_tokens(subject: RunningSubject, template: str | None = None) -> RunningSubject:
    """The same model with special tokens behind the last row of its embeddings, as a fine-tuning may leave them."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|extra{n}|>" for n in range(10)]})
    tokenizer.chat_template = template
    return RunningSubject(subject.model, tokenizer, "tiny")


@pytest.mark.parametrize(
    ("prompt", "chat", "answer"),
    [
        ('<|extra9|>"{ghost}" is "', None, ""),
        (QUESTION, "<|extra9|>{{ messages[0].content }}", ANSWER),
        (QUESTION, "{{ messages[0].content }}", "<|extra9|>" + ANSWER),
    ],
    ids=["prompt", "template", "answer"],
)
def test_a_token_without_an_embedding_in_a_prompt_is_told(llama, prompt, chat, answer):
    many = with_more_tokens(llama, chat)
    with pytest.raises(UserError) as refused:
        ghost_prompt(many, prompt, 5, chat=chat is not None, answer=answer)
    said = "has the token '<|extra9|>' (#309), for which tiny has no embedding: its rows are #0 to #303"
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ['"<|extra9|>"', "<|extra9|>", "#309"])
def test_a_token_without_an_embedding_in_token_arithmetic_is_told(llama, text):
    with pytest.raises(UserError, match="309|#303"):
        tokens_meant(with_more_tokens(llama), text)


def test_a_prompt_of_too_many_tokens_is_told(llama):
    with pytest.raises(UserError, match="it can have at most 2,000"):
        ghost_prompt(llama, "🜁" * 600 + '"{ghost}"', 5)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 'x' * 30000 }}{{ messages[0].content }}", "makes a text of 30,0"),
        (None, "tiny has no chat template; use an instruction-tuned model or turn chat off"),
        ("{{ raise_exception('<b>no</b>') }}", "fails: '<b>no</b>'"),
        ("{{ messages[0].content }", "fails"),
        ("{{ 1 // 0 }}", "fails: 'integer division"),
        ("{{ messages.append(1) }}", "fails"),  # the sandbox
        ("{{ messages[0].content.__class__.__mro__ }}", "fails"),
        ("Hello!", "leaves {ghost} in the text 0 times"),
        ("{{ messages[0].content * 2 }}", "leaves {ghost} in the text 2 times"),
        ("{{ 'word ' * 300 }} {{ messages[0].content }}", "Shorten the prompt"),
    ],
    ids=["too long", "none", "refuses", "no program", "error", "writes", "looks about", "loses", "doubles", "long"],
)
def test_a_chat_template_that_will_not_do_is_told(llama, template, said):
    with pytest.raises(UserError) as refused:
        ghost_prompt(in_chats(llama, template), QUESTION, 5, chat=True, answer=ANSWER)
    assert said in str(refused.value)


def test_a_ghost_that_is_no_token_of_its_own_in_an_answer_is_told():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "it": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    chatting = tiny_subject("llama", PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE))
    with pytest.raises(UserError, match=r"In the prompt 'under\{ghost\}' the place .* no single token"):
        ghost_prompt(chatting, "What?", 5, chat=True, answer="under{ghost}")


# On the demo


RAIN = VectorRecipe(sae="demo/hook_embed", feature=927)


@pytest.fixture(scope="module")
def asked(demo_library):
    """Two prompts in one go, the second a chat."""
    return list(trees_of_prompts(demo_library, RAIN, [TreeRecipe(prompt=name, cutoff=2e-3)
                                                      for name in ("synonym", "chat-synonym")]))


def test_several_prompts_give_a_tree_each(asked):
    plain, chat = asked
    assert "rain" in [found.text for found in plain.definitions(5)]
    assert "rain" in [found.text for found in chat.definitions(5)]
    assert plain.settings | {"prompt": "", "chat": True, "answer": ""} == chat.settings | {"prompt": "", "answer": ""}
    assert len(plain.tree) != len(chat.tree)


def test_a_chat_comes_back_from_its_json_with_its_recipe(asked):
    chat = asked[1]
    again = read_tree(chat.to_json())
    assert again.to_json() == chat.to_json()
    assert recipes(again.settings)[1] == TreeRecipe(prompt="chat-synonym", cutoff=2e-3)
    assert json.loads(chat.to_json())["settings"]["answer"] == 'A synonym is "'


def test_what_was_asked_is_told_with_both_sides_of_a_chat(asked):
    plain, chat = asked
    assert plain.asked == 'A synonym of "{ghost}" is "'
    assert chat.asked == 'user: Give me a synonym of the word "{ghost}". – assistant: A synonym is "'
    assert "assistant: A synonym is &quot;" in standalone(chat)


def test_compared_with_a_file_from_before_there_were_chats_nothing_differs(asked):
    plain, chat = asked
    old = replace(plain, settings={name: plain.settings[name] for name in plain.settings.keys() - {"chat", "answer"}})
    assert "nothing differs" in comparison_line(plain, old, compare_trees(plain, old))
    assert "chat <b>False</b> → <b>True</b>" in comparison_line(chat, old, compare_trees(chat, old))


def test_all_prompts_are_checked_before_the_first_tree_grows(demo_library):
    trees = trees_of_prompts(demo_library, RAIN, [TreeRecipe(), TreeRecipe(prompt="🜁" * 1000 + '"{ghost}" "')])
    with pytest.raises(UserError, match="Shorten the prompt"):
        next(trees)
