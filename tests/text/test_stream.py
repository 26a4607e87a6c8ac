"""Incremental decoding equals decoding at once, and stop strings are found across token boundaries."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import bpe_metadata, spm_metadata

from torchless.errors import InvalidRequestError, TokenizerError
from torchless.text.stream import StopMatcher, TextStream
from torchless.text.tokenizer import Tokenizer

BYTES = Tokenizer.from_metadata(bpe_metadata(merges=[], special={"<|im_end|>": 3}))  # Ids 0 to 255 are bytes.
PIECES = Tokenizer.from_metadata(spm_metadata(["▁", "a", "▁a", "▁▁", "é", "🙂", "\n"]))

UTF8_PIECES = st.one_of(
    st.binary(max_size=4),
    st.text(max_size=3).map(str.encode),
    st.sampled_from(["é", "日本", "🙂", "👩‍👩‍👧", "\ufeff"]).map(str.encode),
    st.sampled_from([b"\xf0\x9f", b"\x98\x80", b"\xe2\x82", b"\xac", b"\xed\xa0\x80", b"\xc0\x80", b"\xff"]),
)


def streamed(tokenizer: Tokenizer, ids: list[int], **options: bool) -> list[str]:
    stream = TextStream(tokenizer, **options)
    return [*(stream.push(index) for index in ids), stream.flush()]


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(UTF8_PIECES, max_size=20))
@example(pieces=["🙂".encode()[:3], b"a"])
@example(pieces=["日".encode()[:2]])
def test_random_bytes_give_what_decoding_them_at_once_gives(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert "".join(streamed(BYTES, list(data))) == data.decode("utf-8", "replace") == BYTES.decode(data)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_no_piece_of_valid_text_ends_inside_a_character(text: str) -> None:
    pieces = streamed(BYTES, list(text.encode()))
    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)
    assert all(len(piece) <= 1 for piece in pieces), "a character appears with its last byte"


@settings(max_examples=300, deadline=None)
@given(
    ids=st.lists(st.integers(0, PIECES.vocab_size - 1), max_size=20),
    skip=st.booleans(),
    continuation=st.booleans(),
)
def test_a_sentencepiece_stream_equals_decode(ids: list[int], skip: bool, continuation: bool) -> None:
    options = {"skip_special_tokens": skip, "continuation": continuation}
    assert "".join(streamed(PIECES, ids, **options)) == PIECES.decode(ids, **options)


def test_only_the_first_space_of_a_whole_text_is_taken_away() -> None:
    word, space = PIECES.token_to_id("▁a"), PIECES.token_to_id("▁▁")
    assert word is not None and space is not None
    assert streamed(PIECES, [1, word, word]) == ["", "a", " a", ""]
    assert streamed(PIECES, [space, word]) == [" ", " a", ""]
    assert streamed(PIECES, [word], continuation=True) == [" a", ""]


def test_control_tokens_are_left_out_or_shown() -> None:
    assert streamed(BYTES, [97, 256, 98]) == ["a", "", "b", ""]
    assert streamed(BYTES, [97, 256], skip_special_tokens=False) == ["a", "<|im_end|>", ""]
    with pytest.raises(TokenizerError):
        TextStream(BYTES).push(257)


# Stop strings.


def stopped(chunks: list[str], stops: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    text = "".join([*(matcher.push(chunk) for chunk in chunks), matcher.flush()])
    return text, matcher.matched


def stopped_at_once(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: the first place where the text ends with a stop string, and the longest such string."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(max_examples=600, deadline=None)
@given(
    chunks=st.lists(st.text(alphabet="ab🙂", max_size=5), max_size=12),
    stops=st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=5), max_size=4, unique=True),
)
@example(chunks=["aab", "aab"], stops=["aabaab"])
@example(chunks=["aa", "ab"], stops=["aab"])
@example(chunks=["ab", "c"], stops=["abcd", "bc"])
def test_stops_are_found_however_the_text_is_cut(chunks: list[str], stops: list[str]) -> None:
    assert stopped(chunks, stops) == stopped_at_once("".join(chunks), stops)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="abc", max_size=30),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_no_more_text_is_held_back_than_a_stop_string_needs(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    given_out = ""
    for end, character in enumerate(text, start=1):
        given_out += matcher.push(character)
        if matcher.matched is not None:
            return
        held = text[len(given_out) : end]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_nothing_comes_after_a_stop() -> None:
    matcher = StopMatcher("###")
    assert (matcher.push("a#"), matcher.push("##b"), matcher.push("c"), matcher.flush()) == ("a", "", "", "")
    assert matcher.matched == "###"


def test_without_stops_text_passes_at_once() -> None:
    assert StopMatcher([]).push("abc") == "abc"


@pytest.mark.parametrize("stops", ["", ["a", ""], [1], [None]])
def test_a_stop_that_is_no_text_is_refused(stops: object) -> None:
    with pytest.raises(InvalidRequestError, match="not empty"):
        StopMatcher(stops)  # type: ignore[arg-type]


def test_a_long_text_with_many_near_misses_takes_linear_time() -> None:
    matcher = StopMatcher(["a" * 5000 + "b"])
    text = "".join(matcher.push("a" * 100) for _ in range(300)) + matcher.flush()
    assert text == "a" * 30000
