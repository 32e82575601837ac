"""The exact text that each token of a vocabulary adds."""

import re
import unicodedata

from multitool.text import bytes_to_text

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
# Scripts whose words stand without blanks between them, or whose tokens do: as the names of their letters begin.
_WITHOUT_BLANKS = ("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "HANGUL ", "THAI ", "LAO ",
                   "KHMER ", "MYANMAR ")


def token_texts(tokenizer, n_tokens: int) -> tuple[str, ...]:
    """The text of token ids 0 to ``n_tokens`` - 1, leading space kept; broken characters as escapes.

    ``tokenizer.decode`` cannot be asked: it drops SentencePiece's leading space and replaces bytes that are no
    whole character. Embedding rows beyond the tokenizer's last token are shown as ``<no token 12345>``.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(n_tokens)))
    added = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
    byte_level = "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder)
    piece_text = _byte_level_text if byte_level else _sentencepiece_text
    texts = []
    for token_id, piece in enumerate(pieces):
        if token_id in added:
            texts.append(added[token_id])
        elif not piece:
            texts.append(f"<no token {token_id}>")
        else:
            texts.append(piece_text(piece))
    return tuple(texts)


def is_word(text: str) -> bool:
    """Whether a token's text is a word: a blank and then letters, or letters alone of a script written without blanks.

    Letters of any script count, with their combining marks (the Unicode categories L and M); one comes first. Without a
    blank, letters of other scripts are the middle or the end of a word, or its beginning at the start of a text.
    """
    letters = text.removeprefix(" ")
    kinds = [unicodedata.category(character)[0] for character in letters]
    if not kinds or kinds[0] != "L" or not set(kinds) <= {"L", "M"}:
        return False
    return text != letters or all(
        kind == "M" or unicodedata.name(letter, "").startswith(_WITHOUT_BLANKS)
        for letter, kind in zip(letters, kinds, strict=True)
    )


def _byte_level_text(piece: str) -> str:
    if all(character in _BYTE_OF for character in piece):
        return bytes_to_text(bytes(_BYTE_OF[character] for character in piece))
    return piece


def _sentencepiece_text(piece: str) -> str:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes_to_text(bytes.fromhex(byte[1])) if byte else piece.replace("▁", " ")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's stand-in character for every byte: itself where it is printable, else one from 256 up, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
