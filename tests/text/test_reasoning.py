"""Reasoning and answer told apart, however the text is cut into pieces."""

from __future__ import annotations

import random

import pytest

from torchless.text.reasoning import STYLES, ReasoningSplitter, find_style, known_style

HARMONY, THINK = STYLES[0], find_style(None)


def split(pieces: list[str], style, *, starts_inside: bool = False) -> list[tuple[str, bool]]:
    """All spans, neighbours of one kind joined."""
    splitter = ReasoningSplitter(style, starts_inside=starts_inside)
    spans = [span for piece in pieces for span in splitter.push(piece)] + splitter.flush()
    joined: list[tuple[str, bool]] = []
    for text, is_reasoning in spans:
        if joined and joined[-1][1] == is_reasoning:
            joined[-1] = (joined[-1][0] + text, is_reasoning)
        else:
            joined.append((text, is_reasoning))
    return joined


CASES = [
    ("<think>\nWell.\n</think>\n\nYes.", THINK, False, [("Well.", True), ("Yes.", False)]),
    ("Plain text with <think> in it", THINK, False, [("Plain text with <think> in it", False)]),
    (
        "<think>a</think>The mark <think> opens, </think> closes.",
        THINK,
        False,
        [("a", True), ("The mark <think> opens, </think> closes.", False)],
    ),
    ("\n  hello", THINK, False, [("\n  hello", False)]),
    ("<think>\nnever ends\n", THINK, False, [("never ends\n", True)]),
    ("\nI see.\n</think>\n\nYes", THINK, True, [("I see.", True), ("Yes", False)]),
    ("<think>\nI see.</think>Yes", THINK, True, [("I see.", True), ("Yes", False)]),
    ("one\n\ntwo</think>x", THINK, True, [("one\n\ntwo", True), ("x", False)]),
    ("<think></think>Yes", THINK, False, [("Yes", False)]),
    ("<thin", THINK, False, [("<thin", False)]),
    ("", THINK, False, []),
    (
        "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>final<|message|>Hi<b>.<|return|>",
        HARMONY,
        False,
        [("Think.", True), ("Hi<b>.", False)],
    ),
    ("<|channel|>final<|message|>Hi.", HARMONY, False, [("Hi.", False)]),
    ("[THINK]hm[/THINK]Oui", find_style("... [THINK] ..."), False, [("hm", True), ("Oui", False)]),
]


@pytest.mark.parametrize(("text", "style", "starts_inside", "expected"), CASES)
def test_the_kinds_do_not_depend_on_the_pieces(text, style, starts_inside, expected):
    draw = random.Random(7)
    assert split([text], style, starts_inside=starts_inside) == expected
    assert split(list(text), style, starts_inside=starts_inside) == expected
    for _ in range(100):
        cuts = sorted(draw.randrange(len(text) + 1) for _ in range(draw.randrange(12)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert split(pieces, style, starts_inside=starts_inside) == expected


def test_text_is_not_held_back_without_need():
    splitter = ReasoningSplitter(THINK)
    assert splitter.push("Hello") == [("Hello", False)]
    assert splitter.push(" <think>") == [(" <think>", False)]


def test_the_style_is_found_in_the_template():
    assert find_style("x <think> y").closing == "</think>"
    assert find_style("x </think> y").opening == "<think>"
    assert find_style("{{ '<|START_THINKING|>' }}").closing == "<|END_THINKING|>"
    assert find_style("{{ '<|channel|>' + name }}") == HARMONY
    assert (
        find_style("<|user|>{{ text }}<|end|><|assistant|><think>") == THINK
    )  # Phi's end of a message is harmony's
    assert known_style("<|user|>{{ text }}<|end|>") is None
    assert find_style(None) == find_style("nothing of that") == THINK
