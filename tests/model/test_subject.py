"""The exact text of every token, and which tokens end a definition."""

import numpy as np
import pytest
import torch
from tiny import (
    END_OF_TEXT,
    N_ROWS,
    N_TOKENS,
    RunningSubject,
    byte_level_tokenizer,
    sentencepiece_tokenizer,
    tiny_model,
    tiny_subject,
)
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.subject import is_word, token_texts
from multitool.store.registry import find_sae
from multitool.text import join_tokens


def id_of(tokenizer, piece: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(piece)
    assert tokenizer.convert_ids_to_tokens(token_id) == piece
    return token_id


def test_byte_level_tokens_keep_their_leading_blank(tokenizer):
    texts = token_texts(tokenizer, N_TOKENS)
    assert texts[id_of(tokenizer, "Ġbe")] == " be"
    assert texts[id_of(tokenizer, "OSS")] == "OSS"
    assert texts[id_of(tokenizer, '."')] == '."'
    assert texts[id_of(tokenizer, "Ġ")] == " "


def test_byte_level_tokens_that_are_no_whole_character_are_escaped(tokenizer):
    texts = token_texts(tokenizer, N_TOKENS)
    assert texts[id_of(tokenizer, "Ċ")] == "\n"
    assert texts[id_of(tokenizer, "â")] == "\\xe2"
    assert texts[id_of(tokenizer, "Ģ")] == "\\x80"


def test_sentencepiece_tokens_keep_their_leading_blank(sentencepiece):
    texts = token_texts(sentencepiece, len(sentencepiece))
    assert texts[id_of(sentencepiece, "▁a")] == " a"
    assert texts[id_of(sentencepiece, "▁▁")] == "  "
    assert texts[id_of(sentencepiece, "▁")] == " "
    assert texts[id_of(sentencepiece, "a")] == "a"
    assert texts[id_of(sentencepiece, "é")] == "é"


def test_sentencepiece_byte_tokens_are_the_byte(sentencepiece):
    texts = token_texts(sentencepiece, len(sentencepiece))
    assert texts[id_of(sentencepiece, "<0x41>")] == "A"
    assert texts[id_of(sentencepiece, "<0x0A>")] == "\n"
    assert texts[id_of(sentencepiece, "<0xE2>")] == "\\xe2"


@pytest.mark.parametrize("text", [' A "dog"  barks.\n', "naïve “x” 中 🙂", "\t a  b "])
@pytest.mark.parametrize("kind", ["tokenizer", "sentencepiece"])
def test_the_texts_of_a_texts_tokens_join_to_that_text(kind, text, request):
    tokenizer = request.getfixturevalue(kind)
    texts = token_texts(tokenizer, len(tokenizer))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 3
    assert join_tokens(texts[token_id] for token_id in ids) == text


def test_no_two_byte_level_tokens_have_the_same_text(tokenizer):
    assert len(set(token_texts(tokenizer, N_TOKENS))) == N_TOKENS


def test_special_tokens_are_shown_by_name(tokenizer, sentencepiece):
    assert token_texts(tokenizer, N_TOKENS)[END_OF_TEXT] == "<|endoftext|>"
    assert token_texts(sentencepiece, 3) == ("<unk>", "<s>", "</s>")


def test_rows_beyond_the_tokenizer_are_shown_by_number(tokenizer):
    texts = token_texts(tokenizer, N_ROWS)
    assert len(texts) == N_ROWS
    assert texts[N_TOKENS:] == tuple(f"<no token {n}>" for n in range(N_TOKENS, N_ROWS))


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_cut(tokenizer):
    assert token_texts(tokenizer, 5) == token_texts(tokenizer, N_TOKENS)[:5]


def test_added_tokens_are_shown_as_they_were_added():
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("Ġé no byte stand-in")])
    assert token_texts(tokenizer, N_TOKENS + 1)[N_TOKENS] == "Ġé no byte stand-in"


def test_the_demo_models_tokens_join_to_the_text(demo_library):
    _, subject = demo_library.load(find_sae("demo/hook_embed"))
    text = ' A dog — naïve, 中文 🙂 — barks.\n\tfor x in "y":'
    ids = subject.tokenizer(text)["input_ids"]
    assert join_tokens(subject.token_texts[token_id] for token_id in ids) == text


# Words


@pytest.mark.parametrize("text", [
    " dog", " Dog", " a", " naïve", " nai\u0308ve", " собака", " σκύλος", " כלב", " कुत्ता", " 犬",
    "犬", "中文", "人々", "ねこ", "カメラー", "ｶﾒﾗ", "개", "หมา", "น้ำ", "ໝາ", "ឆ្កែ", "ခွေး",
])
def test_a_word_is_a_blank_and_letters_or_letters_of_a_script_without_blanks(text):
    assert is_word(text)


@pytest.mark.parametrize("text", [
    "", " ", "  ", "\n", " \n", "dog", "собака", "ing", "  dog", " dog ", " dog.", " a b", " don't",
    " 7", " b2", "1", ".", " ²", " 🙂", "。", "犬。", "犬dog", "dog犬", " \u0301", "\u0301a",
    "\\xe2", " \\x80", "<|endoftext|>", "<no token 301>",
])
def test_parts_of_words_signs_and_numbers_are_no_words(text):
    assert not is_word(text)


def test_the_words_of_a_model_are_those_of_its_tokens_and_no_special_ones():
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [" special"]})
    tokenizer.add_tokens([AddedToken(" added")])
    subject = tiny_subject("llama", tokenizer)
    words = [subject.token_texts[token_id] for token_id in np.flatnonzero(subject.words)]
    assert {" be", " is", " a", " added"} <= set(words)
    assert not {"OSS", " special", "<|endoftext|>", "<no token 303>"} & set(words)
    assert {"OSS", " special", "<|endoftext|>", "<no token 303>"} <= set(subject.token_texts)
    assert subject.words.shape == (N_ROWS,)


# Ends


def test_tokens_with_the_closing_quote_and_the_end_of_text_end_a_definition(tokenizer):
    subject = tiny_subject("llama", tokenizer)
    ends = subject.ends('"')
    assert ends.dtype == bool
    assert ends.shape == (N_ROWS,)
    expected = {t for t in range(N_TOKENS) if '"' in tokenizer.decode([t])} | {END_OF_TEXT}
    assert set(np.flatnonzero(ends).tolist()) == expected
    assert {tokenizer.decode([t]) for t in expected} >= {'"', ' "', '."', "<|endoftext|>"}


def test_without_a_closing_quote_only_the_end_of_text_ends(tokenizer):
    assert np.flatnonzero(tiny_subject("llama", tokenizer).ends(None)).tolist() == [END_OF_TEXT]


def test_another_quote_ends_where_it_was_opened(tokenizer):
    ends = tiny_subject("llama", tokenizer).ends("'")
    assert ends[id_of(tokenizer, "'")]
    assert not ends[id_of(tokenizer, '"')]


def test_every_end_of_text_that_the_model_or_its_tokenizer_names_counts(tokenizer):
    model = tiny_model("llama")
    model.config.eos_token_id = [3, 4]
    model.generation_config.eos_token_id = 5
    assert np.flatnonzero(RunningSubject(model, tokenizer, "").ends(None)).tolist() == [END_OF_TEXT, 3, 4, 5]


def test_an_end_of_text_beyond_the_models_rows_or_none_at_all_is_no_harm(tokenizer):
    model = tiny_model("llama")
    model.config.eos_token_id = None
    model.generation_config.eos_token_id = [N_ROWS + 7, 6]
    assert np.flatnonzero(RunningSubject(model, tokenizer, "").ends(None)).tolist() == [END_OF_TEXT, 6]


def test_a_turns_end_counts_though_no_configuration_lists_it():
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    ends = RunningSubject(tiny_model("llama"), tokenizer, "").ends(None)
    assert np.flatnonzero(ends).tolist() == [END_OF_TEXT, N_TOKENS]


# The ghost's place


def test_the_ghost_stands_at_one_token_and_the_rest_is_the_prompt(tokenizer):
    subject = tiny_subject("llama", tokenizer)
    prompt = ghost_prompt(subject, 'The word "{ghost}" means "', 5)
    assert tokenizer.decode(prompt.token_ids) == 'The word "OSS" means "'
    assert tokenizer.decode([prompt.token_ids[prompt.position]]) == "OSS"
    assert prompt.placeholder_id == prompt.token_ids[prompt.position]


def test_a_blank_before_the_ghost_may_belong_to_its_token(sentencepiece):
    # This tokenizer has no token OSS; the X is its only capital, and a blank before it is a token by itself.
    subject = tiny_subject("llama", sentencepiece)
    prompt = ghost_prompt(subject, 'a "{ghost}" b "', 5)
    assert sentencepiece.convert_ids_to_tokens(prompt.placeholder_id) == "X"


def test_a_beginning_of_text_that_the_tokenizer_adds_is_part_of_the_prompt():
    tokenizer = sentencepiece_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    prompt = ghost_prompt(tiny_subject("llama", tokenizer), '"{ghost}" "', 5)
    assert tokenizer.convert_ids_to_tokens(list(prompt.token_ids)) == ["<s>", '"', "X", '"', "▁", '"']
    assert prompt.position == 2


def test_the_ghosts_vector_is_read_in_the_models_own_precision(tokenizer):
    subject = tiny_subject("gemma", tokenizer)
    subject.model.to(torch.bfloat16)
    half = RunningSubject(subject.model, tokenizer, "half")
    assert half.space.E.dtype == torch.bfloat16
    prompt = ghost_prompt(half, '"{ghost}" "', 5)
    found = half.next_tokens(prompt, half.space.centroid, 5, 5).start()
    assert found.prob.dtype == np.float32
    assert found.token_id.shape == found.prob.shape == (5,)
