"""The text of an answer against the plain way: decode all tokens anew, and look for what is banned."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchless.errors import InvalidRequestError
from torchless.text.answer import AnswerText
from torchless.text.stream import StopMatcher, TextStream
from torchless.text.tokenizer import Tokenizer

# One control token, three bytes of é and €, and pieces of one to three letters.
PIECES = [
    "<s>",
    "<0xC3>",
    "<0xA9>",
    "<0xE2>",
    "<0x82>",
    "<0xAC>",
    "a",
    "b",
    "ab",
    "ba",
    "bab",
    "c",
    "\u2581a",
]
TYPES = [3, 6, 6, 6, 6, 6] + [1] * 7
TOKENIZER = Tokenizer.from_metadata(
    {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": PIECES,
        "tokenizer.ggml.scores": [0.0] * len(PIECES),
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
)
NUM_IDS = len(PIECES) + 1  # the last is padding without text

strings = st.lists(st.text("abcé€ ", min_size=1, max_size=4), max_size=3)


def answer(stops: list[str], banned: list[str]) -> AnswerText:
    return AnswerText(TextStream(TOKENIZER), StopMatcher(stops, banned), len(PIECES))


def settled(ids: list[int]) -> str:
    """The text of tokens, without bytes at its end that may become a character."""
    stream = TextStream(TOKENIZER)
    return "".join(stream.push(token_id) for token_id in ids if token_id < len(PIECES))


def first_end(text: str, strings: list[str]) -> int:
    """Where the first of these strings to be complete ends; a large number where none is in the text."""
    ends = [text.find(string) + len(string) for string in strings if string in text]
    return min(ends, default=10**9)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.integers(0, NUM_IDS - 1), max_size=20), strings, strings)
def test_the_first_banned_string_is_found_where_it_began(ids, stops, banned):
    subject = answer(stops, banned)
    for count, token_id in enumerate(ids, 1):
        begin = subject.push(token_id)
        text = settled(ids[:count])
        stop_end, banned_end = first_end(text, stops), first_end(text, banned)
        shown = subject.text()
        assert text.startswith(shown)
        if stop_end < 10**9 and stop_end <= banned_end:
            found = [stop for stop in stops if text[:stop_end].endswith(stop)]
            assert begin is None and subject.stop == max(found, key=len)
            assert shown == text[: stop_end - len(subject.stop)]
            return
        if banned_end < 10**9:
            assert begin is not None
            longest = max((string for string in banned if text[:banned_end].endswith(string)), key=len)
            place = banned_end - len(longest)
            # The token has a byte of the character at `place`: those before it have none of it or of what follows.
            assert len(settled(ids[:begin])) <= place <= len(settled(ids[: begin + 1]))
            assert len(shown) <= len(settled(ids[:begin])), "nothing of a token that is taken back was shown"
            check_rewound(subject, ids[:begin], stops, banned)
            return
        assert begin is None and subject.stop is None
        if not banned:
            assert any(string.startswith(text[len(shown) :]) for string in [*stops, ""])
    subject.flush()
    assert subject.text() == TOKENIZER.decode([i for i in ids if i < len(PIECES)])
    assert subject.num_certain_tokens == len(ids)


def check_rewound(subject: AnswerText, kept: list[int], stops: list[str], banned: list[str]) -> None:
    """After going back everything is as if the tokens had never come."""
    assert len(kept) >= subject.num_certain_tokens
    subject.rewind(len(kept))
    fresh = answer(stops, banned)
    for token_id in kept:
        assert fresh.push(token_id) is None
    for one in (subject, fresh):
        one.begin = one.push(11)  # type: ignore[attr-defined]
    assert subject.text() == fresh.text()
    assert subject.begin == fresh.begin and subject.stop == fresh.stop  # type: ignore[attr-defined]
    assert subject.num_certain_tokens == fresh.num_certain_tokens


def test_tokens_are_certain_once_their_text_cannot_begin_something_banned():
    subject = answer([], ["abc"])
    found = [
        (subject.push(PIECES.index(piece)), subject.num_certain_tokens) for piece in ("b", "a", "b", "b")
    ]
    assert found == [(None, 1), (None, 1), (None, 1), (None, 4)]
    assert subject.text() == "babb"


def test_text_that_going_back_would_open_again_is_not_certain():
    """To take the c back leaves an a, which a b may follow; to take "ca" back would change the c that was there."""
    subject = answer([], ["ab", "cb"])
    assert [subject.push(PIECES.index(piece)) for piece in ("c", "a", "c")] == [None] * 3
    assert subject.text() == "" and subject.num_certain_tokens == 0
    assert subject.push(PIECES.index("b")) == 2
    subject.rewind(2)
    assert subject.push(PIECES.index("b")) == 1
    subject.rewind(1)
    for piece, expected in (("a", ("", 0)), ("a", ("", 0)), ("<0xC3>", ("", 0)), ("<0xA9>", ("caaé", 5))):
        assert subject.push(PIECES.index(piece)) is None
        assert (subject.text(), subject.num_certain_tokens) == expected


def test_a_token_is_shown_as_a_whole_or_not_at_all():
    subject = answer([], ["bc"])
    assert subject.push(PIECES.index("ab")) is None and subject.text() == ""
    assert subject.push(PIECES.index("c")) == 0


def test_a_character_of_several_tokens_began_in_the_first_of_them():
    subject = answer([], ["\u20ac"])
    ids = [PIECES.index(piece) for piece in ("<s>", "<0xE2>", "<0x82>", "<0xAC>")]
    assert [subject.push(token_id) for token_id in ids] == [None, None, None, 1]
    subject.rewind(1)
    assert subject.push(PIECES.index("c")) is None and subject.text() == "c"


@pytest.mark.parametrize("wrong", [[""], [1]])
def test_banned_strings_are_strings_and_not_empty(wrong):
    with pytest.raises(InvalidRequestError, match="banned: expected strings"):
        StopMatcher([], wrong)
