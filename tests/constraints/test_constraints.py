"""Constrained text from the built-in model: it matches, it ends, and what else goes on does not change it."""

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pytest

import torchless

pytest.importorskip("llguidance")

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "kind": {"enum": ["cat", "dog", 3, None, "été 😀"]},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{3}$"},
        "size": {"type": "number", "minimum": -2.5, "maximum": 1000},
        "free": {"type": "number"},
        "count": {"type": "integer", "exclusiveMinimum": 0, "maximum": 50},
        "day": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 1, "maxItems": 3},
        "inner": {
            "type": "object",
            "properties": {
                "ok": {"type": "boolean"},
                "next": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/point"}]},
            },
            "required": ["ok", "next"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "kind", "code", "size", "free", "count", "day", "tags", "inner"],
    "additionalProperties": False,
    "$defs": {
        "point": {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "y": {"const": 1}},
            "required": ["x", "y"],
            "additionalProperties": False,
        }
    },
}
WILD = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.fixture(scope="module")
def model():
    with torchless.load(threads=2) as model:
        yield model


def check_random_texts(model, count):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMA)

    def generate(seed):
        return model.generate("Once upon a time", schema=SCHEMA, max_tokens=1000, seed=seed, **WILD)

    with ThreadPoolExecutor(8) as users:
        for completion in users.map(generate, range(count)):
            assert completion.finish_reason == "stop", completion.text
            assert completion.parsed == json.loads(completion.text)
            validator.validate(completion.parsed)


def test_random_texts_are_valid(model):
    check_random_texts(model, 50)


@pytest.mark.slow
def test_a_thousand_random_texts_are_valid(model):
    check_random_texts(model, 1000)


@pytest.mark.parametrize(
    ("keywords", "pattern"),
    [
        ({"regex": r"\d{3}-[a-f]+|x"}, r"[0-9]{3}-[a-f]+|x"),
        ({"regex": "(?i)yes 😀"}, "(?i)yes 😀"),
        ({"choices": ["yes", "no", "😀", "yes or no"]}, "yes|no|😀|yes or no"),
        ({"grammar": 'root ::= "<" [a-c]+ ">" | "é"'}, "<[abc]+>|é"),
        ({"grammar": 'start: "<" WORD ">"\nWORD: /[a-c]{1,9}/'}, "<[abc]{1,9}>"),
        ({"grammar": 'start: "v=" value\nvalue: %json {"enum": [1, 2]}'}, "v=[12]"),
        ({"guided_choice": ["a"]}, "a"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": 5}}}}, "5"),
        ({"format": {"const": "é"}}, '"é"'),
        ({"structured_outputs": {"regex": "[ab]{4}"}}, "[ab]{4}"),
        ({"schema": '{"type": "boolean"}'}, "true|false"),
        ({"schema": {"type": "integer", "minimum": 1, "maximum": 3}}, "[123]"),
    ],
)
def test_text_matches_what_was_asked_for(model, keywords, pattern):
    for seed in range(6):
        completion = model.generate("Once", max_tokens=300, seed=seed, **WILD, **keywords)
        if completion.finish_reason == "stop":
            assert re.fullmatch(pattern, completion.text)
        else:  # a repetition without end
            assert completion.finish_reason == "length" and "+" in pattern


def test_json_alone_is_an_object(model):
    closing = {model.tokenizer.token_to_id(text): 9.0 for text in ("}", '"')}
    for seed in range(4):
        completion = model.generate("Once", json=True, seed=seed, max_tokens=600, logit_bias=closing)
        assert completion.finish_reason == "stop" and isinstance(completion.parsed, dict)


def test_a_text_that_is_cut_is_kept_and_not_parsed(model):
    completion = model.generate("Once", schema=SCHEMA, max_tokens=5, seed=1)
    assert (
        completion.finish_reason == "length" and completion.text.startswith("{") and completion.parsed is None
    )
    number = model.generate("Once", schema={"type": "integer", "minimum": 100000}, max_tokens=2, seed=1)
    assert number.finish_reason == "length" and number.parsed is None
    stopped = model.generate("Once", schema={"const": "ab"}, stop="b", seed=1)
    assert stopped.finish_reason == "stop" and stopped.parsed is None


def test_a_chat_answers_in_json(model):
    messages = [{"role": "user", "content": "Tell me about a cat."}]
    completion = model.chat(
        messages, schema={"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, seed=2
    )
    assert isinstance(completion.parsed, list)
    chunks = list(model.stream_chat(messages, choices=["Yes.", "No."], seed=2))
    assert "".join(chunk.text for chunk in chunks) in ("Yes.", "No.")
    assert chunks[-1].completion.parsed is None


def test_a_repeated_penalty_and_a_bias_do_not_break_the_grammar(model):
    completion = model.generate(
        "Once", schema={"const": "aaaaaaaa"}, seed=1, repeat_penalty=5.0, logit_bias={7: 100.0}
    )
    assert completion.parsed == "aaaaaaaa"


@dataclass
class Point:
    x: int
    label: Literal["a", "b"]


def test_classes_are_schemas(model):
    pydantic = pytest.importorskip("pydantic")
    extensions = pytest.importorskip("typing_extensions")  # pydantic wants its TypedDict before Python 3.12

    class Answer(extensions.TypedDict):
        mood: Literal["good", "bad"]

    class Cat(pydantic.BaseModel, extra="forbid"):
        kind: Literal["cat"]
        lives: int = pydantic.Field(ge=1, le=9)

    class Dog(pydantic.BaseModel, extra="forbid"):
        kind: Literal["dog"]
        name: str = pydantic.Field(max_length=4)

    class Pet(pydantic.BaseModel, extra="forbid"):
        pet: Cat | Dog = pydantic.Field(discriminator="kind")

    for seed in range(3):
        completion = model.generate("Once", schema=Pet, seed=seed, max_tokens=300, **WILD)
        Pet.model_validate_json(completion.text)
    for seed in range(3):
        text = model.generate("Once", schema=Answer, seed=seed, max_tokens=300).text
        assert re.match(r'\{\s*"mood"\s*:\s*"(good|bad)"', text)
        assert re.match(
            r'\{\s*"x"\s*:\s*-?\d+', model.generate("Once", schema=Point, seed=seed, max_tokens=300).text
        )


def test_neighbours_chunks_and_threads_do_not_change_a_constrained_text(model):
    """The promise, with constraints: alone, in a batch, from many threads, in small steps."""
    requests = [
        {"schema": SCHEMA, "seed": 1},
        {"choices": ["yes", "no"], "seed": 2},
        {"regex": "[a-z ]{20,60}", "seed": 3},
        {"seed": 4},
    ]
    alone = [model.generate("Once upon", max_tokens=120, logits_hash=True, **r) for r in requests]
    results = [None] * 16

    def work(index):
        results[index] = model.generate("Once upon", max_tokens=120, logits_hash=True, **requests[index % 4])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, result in enumerate(results):
        expected = alone[index % 4]
        assert (result.token_ids, result.logits_hash) == (expected.token_ids, expected.logits_hash)
    batch = model.batch(["Once upon"] * 3, schema=SCHEMA, seed=1, max_tokens=120)
    assert {completion.token_ids for completion in batch} == {alone[0].token_ids}
    mixed = model.batch(
        ["Once upon", torchless.Request("Once upon", **requests[1])], schema=SCHEMA, seed=1, max_tokens=120
    )
    assert [completion.token_ids for completion in mixed] == [alone[0].token_ids, alone[1].token_ids]
    assert model.submit("Once upon", max_tokens=120, **requests[0]).result().parsed == alone[0].parsed
    assert asyncio.run(model.agenerate("Once upon", max_tokens=120, **requests[2])).text == alone[2].text
    with torchless.load(threads=1, batch_tokens=16, ctx=256) as other:
        for expected, request in zip(alone, requests, strict=True):
            again = other.generate("Once upon", max_tokens=120, **request)
            assert again.token_ids == expected.token_ids


def test_a_refused_request_leaves_the_model_usable(model):
    for keywords in (
        {"schema": {"not": {}}},
        {"regex": "("},
        {"grammar": "start: nothing"},
        {"choices": "yes"},
        {"json": "yes"},
    ):
        with pytest.raises(
            torchless.GrammarError if "json" not in keywords else torchless.InvalidRequestError
        ):
            model.generate("Once", **keywords)
    with pytest.raises(torchless.InvalidRequestError, match="regex and json"):
        model.generate("Once", json=True, regex="a")
    with pytest.raises(torchless.InvalidRequestError, match="response_format"):
        model.generate("Once", response_format={"type": "xml"})
    assert model.generate("Once", choices=["ok"]).text == "ok"
    assert model.generate("Once", choices=None, json=False, schema=None, max_tokens=3).text


def test_a_grammar_that_grows_too_complex_ends_its_request_alone(model):
    stream = model.stream("Once", seed=1, max_tokens=60)
    first = next(stream).text
    with pytest.raises(torchless.GrammarError):
        model.generate("Once", grammar='start: "a" start', max_tokens=5)
    assert (
        first + "".join(chunk.text for chunk in stream) == model.generate("Once", seed=1, max_tokens=60).text
    )


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_drafted_tokens_follow_the_grammar_too(model, temperature):
    """The same tokens with and without speculation: a mask is computed behind every token that was drafted."""
    request = {"schema": SCHEMA, "temperature": temperature, "seed": 5, "max_tokens": 300}
    expected = model.generate("Once upon", **request)
    for speculation in ({"speculative": "prompt-lookup"}, {"draft_model": "built-in"}):
        with torchless.load(threads=1, **speculation) as other:
            assert other.generate("Once upon", **request).token_ids == expected.token_ids
