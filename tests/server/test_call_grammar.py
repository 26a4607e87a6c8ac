"""Grammars for calls of tools: what a model must or may write in each style, and that it is read back as a call."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from torchless.server.call_grammar import call_grammar
from torchless.server.parts import Note, Text, ToolCall
from torchless.server.tool_reader import ToolReader
from torchless.server.tool_styles import styles
from torchless.server.toolbox import Toolbox

llguidance = pytest.importorskip("llguidance", reason="llguidance is not installed")

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FRAMED = [style for style in styles() if style.frame is not None]
# A style whose mark is a control token of the built-in model.
CONTROLLED = replace(FRAMED[0], name="controlled", begins=("<|user|>",), ends=("<|assistant|>",))


def box(choice, strict=True):
    function = {"name": "weather", "parameters": SCHEMA, "strict": strict}
    other = {"type": "function", "function": {"name": "stop"}}
    return Toolbox.read([{"type": "function", "function": function}, other], choice)


@pytest.fixture(scope="module")
def matches(stories):
    """Says whether a text can be written under a grammar, and whether it may end there."""
    from torchless.constraints.grammars import grammar_from_text
    from torchless.constraints.matcher import compile_grammar
    from torchless.constraints.tokens import GrammarTokens

    tokens = GrammarTokens(stories.tokenizer, stories.tokenizer.vocab_size)

    def check(source, text):
        matcher = compile_grammar(tokens, grammar_from_text(source)).deep_copy()
        ids = stories.tokenizer.encode(text, parse_special=True)
        count = matcher.validate_tokens(ids)
        matcher.consume_tokens(ids[:count])
        return count == len(ids) and matcher.is_accepting()

    return check


def written(style, arguments, name="weather"):
    front, back = style.frame(name)
    begin = "" if style.at_start else style.begins[0]
    return begin + front + json.dumps(arguments) + back + (style.ends[0] if style.ends else "")


ALL = pytest.mark.parametrize("style", [*FRAMED, CONTROLLED], ids=lambda style: style.name)


@ALL
def test_a_call_that_must_come_is_one_with_right_arguments(style, matches, stories):
    source = call_grammar(style, box("required"), stories.tokenizer)
    assert matches(source, written(style, {"city": "Oslo"}))
    assert matches(source, written(style, {}, "stop"))
    assert not matches(source, written(style, {"city": "Paris"}))
    assert not matches(source, written(style, {"city": "Oslo"}, "thunder"))
    assert not matches(source, "Hello") and not matches(source, "")


@ALL
def test_a_call_that_may_come_has_right_arguments(style, matches, stories):
    source = call_grammar(style, box("auto"), stories.tokenizer)
    assert matches(source, "Hello there.\nIt is { cold } & <b>.")
    assert matches(source, written(style, {"city": "Oslo"}))
    assert not matches(source, written(style, {"city": "Paris"}))
    assert matches(source, written(style, {"any": [1]}, "stop"))
    if not style.at_start:
        assert matches(source, "I look.\n" + written(style, {"city": "Oslo"}))
        assert not matches(source, "I look.\n" + written(style, {"city": "Paris"}))
        if style.ends:
            assert matches(source, written(style, {"city": "Oslo"}) * 2)


@ALL
def test_a_tool_that_is_not_strict_takes_any_object_where_its_schema_cannot_be_enforced(
    style, matches, stories
):
    function = {"name": "weather", "parameters": {"type": "object", "not": {}}}
    loose = Toolbox.read([{"type": "function", "function": function}], "required")
    assert matches(call_grammar(style, loose, stories.tokenizer), written(style, {"city": "Paris"}))


@ALL
def test_what_the_grammar_lets_through_is_read_back(style):
    reader = ToolReader(style, {"weather": SCHEMA, "stop": {}})
    parts = [*reader.push(written(style, {"city": "Oslo"})), *reader.finish()]
    (call,) = parts
    assert isinstance(call, ToolCall) and json.loads(call.arguments) == {"city": "Oslo"}
    assert not any(isinstance(part, Text | Note) for part in parts)
