"""Reasoning and answer told apart in what a model writes: ``<think>...</think>`` and its kin, while it streams."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ReasoningSplitter", "ReasoningStyle", "Span", "find_style", "known_style"]


class Span(NamedTuple):
    """A piece of text, and whether it is reasoning."""

    text: str
    is_reasoning: bool


class ReasoningStyle(NamedTuple):
    """How a family of models marks its reasoning.

    Attributes:
        opening, closing: the texts before and behind the reasoning.
        others: further marks, which are no part of the answer. Where there are any, marks count wherever they stand;
            else reasoning can only be the first thing in an answer, so that an answer may speak about the marks.
    """

    opening: str
    closing: str
    others: tuple[str, ...] = ()


_THINK = ReasoningStyle("<think>", "</think>")

STYLES = (
    ReasoningStyle(
        "<|channel|>analysis<|message|>",  # harmony, of gpt-oss
        "<|end|>",
        (
            "<|start|>assistant",
            "<|channel|>final<|message|>",
            "<|channel|>commentary<|message|>",
            "<|return|>",
        ),
    ),
    ReasoningStyle("<|channel>thought", "<channel|>"),  # Gemma 4
    ReasoningStyle("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ReasoningStyle("[THINK]", "[/THINK]"),  # Magistral
    ReasoningStyle("<seed:think>", "</seed:think>"),  # Seed-OSS
    _THINK,
)


def known_style(template: str | None) -> ReasoningStyle | None:
    """The style that a model's chat template names; None where it names none.

    >>> known_style("... <seed:think> ...").closing
    '</seed:think>'
    """
    if template is None:
        return None
    # Harmony's template puts the channel's name together at run time, and its end mark is that of other families, too.
    if "<|channel|>" in template:
        return STYLES[0]
    return next(
        (style for style in STYLES[1:] if style.opening in template or style.closing in template), None
    )


def find_style(template: str | None) -> ReasoningStyle:
    """The style of a model, by its chat template; ``<think>`` where that names none."""
    return known_style(template) or _THINK


class ReasoningSplitter:
    """Splits a text that comes in pieces. However it is cut, the spans, joined by kind, are the same.

    Text that may be the start of a mark is held back until that is decided. White space around the reasoning is
    dropped.

    Example:
        >>> splitter = ReasoningSplitter(find_style(None))
        >>> splitter.push("<thi"), splitter.push("nk>\\nWell.</think>\\n\\nYes")
        ([], [Span(text='Well.', is_reasoning=True), Span(text='Yes', is_reasoning=False)])
    """

    def __init__(self, style: ReasoningStyle, *, starts_inside: bool = False) -> None:
        """Begins with an answer, or inside its reasoning where the prompt has ended with the opening mark."""
        self._style = style
        self._held = ""
        self._step = self._begin_reasoning if starts_inside else self._begin
        self._spans: list[Span] = []

    def push(self, text: str) -> list[Span]:
        """What is certain with this piece; maybe nothing."""
        self._held += text
        while self._step():
            pass
        return self._take()

    def flush(self) -> list[Span]:
        """What was held back, when no more follows."""
        is_reasoning = self._step in (self._begin_reasoning, self._reason)
        held, self._held = self._held, ""
        self._emit(held, is_reasoning)
        return self._take()

    # Each state looks at what is held, moves on, and returns False once it needs more text.

    def _begin(self) -> bool:
        """Nothing but white space so far: reasoning may begin."""
        text = self._held.lstrip()
        marks = (self._style.opening, *self._style.others)
        for mark in marks:
            if text.startswith(mark):
                self._held = text[len(mark) :]
                self._step = self._begin_reasoning if mark == self._style.opening else self._begin_answer
                return True
        if any(mark.startswith(text) for mark in marks):
            return False
        self._step = self._answer
        return True

    def _begin_reasoning(self) -> bool:
        """Behind the opening, which a model may repeat after a prompt that ended with it."""
        text = self._held.lstrip()
        if text.startswith(self._style.opening):
            self._held = text[len(self._style.opening) :]
            return True
        if self._style.opening.startswith(text):
            return False
        self._held = self._held.lstrip()
        self._step = self._reason
        return True

    def _reason(self) -> bool:
        before, mark, behind = self._held.partition(self._style.closing)
        if mark:
            self._emit(before.rstrip(), True)
            self._held, self._step = behind, self._begin_answer
            return True
        cut = len(self._held) - _overlap(self._held, (self._style.closing,))
        cut = len(self._held[:cut].rstrip())
        self._emit(self._held[:cut], True)
        self._held = self._held[cut:]
        return False

    def _begin_answer(self) -> bool:
        """Behind the reasoning: white space is dropped."""
        self._held = self._held.lstrip()
        if not self._held:
            return False
        self._step = self._begin if self._style.others else self._answer
        return True

    def _answer(self) -> bool:
        marks = (self._style.opening, *self._style.others) if self._style.others else ()
        found = [(self._held.find(mark), mark) for mark in marks if mark in self._held]
        if found:
            position, mark = min(found)
            self._emit(self._held[:position], False)
            self._held = self._held[position + len(mark) :]
            self._step = self._begin_reasoning if mark == self._style.opening else self._begin_answer
            return True
        cut = len(self._held) - _overlap(self._held, marks)
        self._emit(self._held[:cut], False)
        self._held = self._held[cut:]
        return False

    def _emit(self, text: str, is_reasoning: bool) -> None:
        if text:
            self._spans.append(Span(text, is_reasoning))

    def _take(self) -> list[Span]:
        spans, self._spans = self._spans, []
        return spans


def _overlap(text: str, marks: tuple[str, ...]) -> int:
    """How much of the end of `text` is the beginning of a mark, but not all of one."""
    longest = 0
    for mark in marks:
        for length in range(min(len(text), len(mark) - 1), longest, -1):
            if mark.startswith(text[-length:]):
                longest = length
                break
    return longest
