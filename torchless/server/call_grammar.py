"""Grammars under which a model calls tools: one that it must, or one that it may with arguments of a given form."""

from __future__ import annotations

import json
import re

from torchless.server.tool_styles import ToolStyle
from torchless.server.toolbox import Toolbox
from torchless.text.tokenizer import Tokenizer

__all__ = ["call_grammar"]


def call_grammar(style: ToolStyle, box: Toolbox, tokenizer: Tokenizer) -> str:
    """Lark for an answer that calls tools of a toolbox: exactly one where it must, else text with or without calls.

    Args:
        style: with a frame.

    Raises:
        ApiError: a strict schema cannot be enforced.
    """
    assert style.frame is not None
    rules = []
    for index, name in enumerate(box.names):
        front, back = style.frame(name)
        parts = [_literal(front, tokenizer), f"args_{index}", _literal(back, tokenizer)]
        rules.append(f"call_{index}: {' '.join(parts)}")
        rules.append(f"args_{index}: %json {json.dumps(box.enforced_schema(name))}")
    calls = "(" + " | ".join(f"call_{index}" for index in range(len(box.names))) + ")"
    begin = "" if style.at_start else style.begins[0]
    end = _literal(style.ends[0], tokenizer) if style.ends else ""
    if box.choice == "required":
        start = f"start: {_literal(begin, tokenizer)} {calls} {end}"
        return "\n".join([start, *rules])
    if style.at_start:
        text = r"TEXT: /[ \n\t]*[^{ \n\t`<](.|\n)*/"
        return "\n".join([f"start: TEXT | {calls}", text, *rules])
    text = rf"TEXT: /(.|\n)+/ & ~/(.|\n)*{_quoted(begin)}(.|\n)*/"
    if _is_control(begin, tokenizer):
        return "\n".join(
            [f"start: TEXT? (mark {calls} {end} TEXT?)*", f"mark: {_literal(begin, tokenizer)}", text, *rules]
        )
    lead = rf"lead[lazy]: /(.|\n)*{_quoted(begin)}/"
    return "\n".join([f"start: TEXT | (lead {calls} {end})+ TEXT?", text, lead, *rules])


def _is_control(text: str, tokenizer: Tokenizer) -> bool:
    index = tokenizer.token_to_id(text)
    return index is not None and index in tokenizer.special_ids


def _literal(text: str, tokenizer: Tokenizer) -> str:
    """Lark for a text, in which control tokens stand for themselves."""
    found = sorted(
        (
            name
            for name in (tokenizer.id_to_token(index) for index in tokenizer.special_ids)
            if name and name in text
        ),
        key=len,
        reverse=True,
    )
    if not text:
        return ""
    pieces = re.split("(" + "|".join(map(re.escape, found)) + ")", text) if found else [text]
    return " ".join(
        f"<[{tokenizer.token_to_id(piece)}]>" if piece in found else _string(piece)
        for piece in pieces
        if piece
    )


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _quoted(text: str) -> str:
    """A text within an expression."""
    return "".join(
        character if character.isalnum() or character in "_ " else f"\\x{{{ord(character):x}}}"
        for character in text
    )
