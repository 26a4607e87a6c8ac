"""Word wrap, columns, and control characters."""

from __future__ import annotations

import random
import re

import pytest

from torchless.cli.terminal import columns, listing, printable
from torchless.cli.word_wrap import WordWrap


def show(stream: str) -> list[str]:
    """What a terminal of endless width shows: a model of cursor left, erase to the end, and newline."""
    lines, column = [[]], 0
    for token in re.findall(r"\x1b\[\d+D|\x1b\[K|.|\n", stream, re.DOTALL):
        if token == "\n":
            lines.append([])
            column = 0
        elif token == "\x1b[K":
            del lines[-1][column:]
        elif token.startswith("\x1b"):
            column -= int(token[2:-1])
        else:
            lines[-1][column:column] = [token]
            column += 1
    return ["".join(line) for line in lines]


def wrapped(pieces, num_columns):
    wrap = WordWrap()
    return show("".join(wrap.feed(piece, num_columns) for piece in pieces))


def test_lines_break_between_words():
    assert wrapped(["the quick brown fox"], 11) == ["the quick ", "brown fox"]
    assert wrapped(["the quick brown"], 10) == ["the quick", "brown"]


def test_words_longer_than_a_line_are_cut():
    assert wrapped(["ab", "cdefghijkl mn"], 6) == ["abcde", "fghij", "kl mn"]
    assert wrapped(["a bcdefghijkl"], 6) == ["a ", "bcdef", "ghijk", "l"]


def test_line_ends_of_the_text_stay():
    assert wrapped(["one\n\ntwo\n"], 20) == ["one", "", "two", ""]


def test_wide_letters_count_twice_and_break_anywhere():
    assert wrapped(["日本語日本語"], 8) == ["日本語", "日本語"]


def test_any_text_in_any_pieces():
    """No line is too long, no letter is lost, and the pieces do not matter."""
    draw = random.Random(4)
    for _ in range(300):
        text = "".join(draw.choice("abcdefgh   \n") for _ in range(draw.randrange(200)))
        width = draw.randrange(4, 40)
        cuts = sorted(draw.randrange(len(text) + 1) for _ in range(draw.randrange(30)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        lines = wrapped(pieces, width)
        assert lines == wrapped([text], width)
        assert all(len(line) < width for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")
        for line in lines[:-1]:  # a word is only cut where it fills a line
            assert len(line) <= width


def test_words_that_fit_are_never_cut():
    draw = random.Random(5)
    words = ["".join(draw.choice("abc") for _ in range(draw.randrange(1, 9))) for _ in range(200)]
    lines = wrapped([" ".join(words)], 12)
    assert " ".join(" ".join(lines).split()).split() == words


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\x00", "\x7f", "\x9b", "\r", "\udcff"])
def test_control_characters_are_made_visible(character):
    shown = printable(f"a{character}b\n\t")
    assert character not in shown and len(shown) == 5 and shown.endswith("\n\t")


def test_columns_line_up():
    rows = [("name", "size"), ("a", "1"), ("longer", "1000")]
    assert columns(rows, right=[1]) == ["name    size", "a          1", "longer  1000"]
    assert columns([]) == []


def test_listings_leave_out_what_is_not_there():
    assert listing("T", [("a", ""), ("b", "1")]) == ["T", "  b  1"]
    assert listing("T", [("a", "")]) == []
