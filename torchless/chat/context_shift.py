"""Which messages of a conversation fit a context: the oldest turns are left out, half of the tokens at a time.

Half at a time, not one turn at a time: what is left begins alike for many turns, so that the prefix cache finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["answer_room", "fitting", "without_oldest"]

Messages = list[dict[str, Any]]

_ROOM_SHARE = 4  # of the context, where nobody said how long an answer may become


def answer_room(context_length: int, max_tokens: int | None) -> int:
    """Tokens that are kept free for an answer: its limit, but no more than a quarter of the context.

    >>> answer_room(4096, None), answer_room(4096, 100)
    (1024, 100)
    """
    most = context_length // _ROOM_SHARE
    return most if max_tokens is None else min(max_tokens, most)


def without_oldest(messages: Sequence[dict[str, Any]], number: int) -> Messages:
    """The messages but for the first `number` that are no system message."""
    first = _first_turn(messages)
    return [*messages[:first], *messages[first + number :]]


def fitting(
    messages: Sequence[dict[str, Any]], num_dropped: int, most: int, count: Callable[[Messages], int]
) -> int:
    """How many of a conversation's messages, the oldest but for a system message, are left out so that the rest fits.

    What is left begins with a question; the last question always stays.

    Args:
        num_dropped: those that were left out before.
        most: tokens that all messages may take.
        count: the tokens of a list of messages.
    """
    if num_dropped >= len(messages) - _first_turn(messages):  # another conversation has begun
        num_dropped = 0
    kept = without_oldest(messages, num_dropped)
    num_tokens = count(kept)
    if num_tokens <= most:
        return num_dropped
    starts = [i for i in _questions(messages) if i > num_dropped]
    num_fixed = count(without_oldest(messages, starts[-1])) if starts else num_tokens
    target = min(most, num_fixed + (num_tokens - num_fixed) // 2)
    for number in starts:
        if number == starts[-1] or count(without_oldest(messages, number)) <= target:
            return number
    return num_dropped


def _questions(messages: Sequence[dict[str, Any]]) -> list[int]:
    """Places of the questions, counted without a system message."""
    turns = messages[_first_turn(messages) :]
    return [i for i, message in enumerate(turns) if message["role"] == "user"]


def _first_turn(messages: Sequence[dict[str, Any]]) -> int:
    return int(bool(messages) and messages[0]["role"] == "system")
