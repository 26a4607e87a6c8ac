"""No body makes the server fail: random and half-right requests to every path get an answer or a refusal."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import is_at_rest

from torchless.sampling.parameters import SamplingParams

MESSAGES = [{"role": "user", "content": "Tell me a story."}]
TOOL = {"type": "function", "function": {"name": "stop", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "stop", "arguments": "{}"}}
# A right body for each path, in which fields are then replaced.
BODIES = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/completions": {"prompt": "Once", "max_tokens": 2},
    "/v1/responses": {"input": "Once", "max_output_tokens": 2},
    "/v1/embeddings": {"input": "Once"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/api/chat": {"model": "stories", "messages": MESSAGES, "options": {"num_predict": 2}},
    "/api/generate": {"model": "stories", "prompt": "Once", "options": {"num_predict": 2}},
    "/api/show": {"model": "stories"},
    "/completion": {"prompt": "Once", "n_predict": 2},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 2},
    "/tokenize": {"content": "Once"},
    "/detokenize": {"tokens": [5]},
    "/apply-template": {"messages": MESSAGES},
}
FIELDS = sorted(
    {item for body in BODIES.values() for item in body}
    | {
        name
        for name in SamplingParams.__dataclass_fields__
        if name not in ("max_tokens", "min_tokens", "ignore_eos")
    }
    | {
        *(
            "model",
            "n",
            "best_of",
            "echo",
            "suffix",
            "stream",
            "stream_options",
            "logprobs",
            "top_logprobs",
            "tools",
        ),
        *(
            "tool_choice",
            "parallel_tool_calls",
            "reasoning_effort",
            "response_format",
            "schema",
            "regex",
            "grammar",
        ),
        *(
            "choices",
            "json",
            "format",
            "system",
            "think",
            "keep_alive",
            "raw",
            "thinking",
            "output_config",
            "text",
        ),
        *(
            "instructions",
            "include",
            "reasoning",
            "encoding_format",
            "dimensions",
            "truncate",
            "chat_template_kwargs",
        ),
        *(
            "n_probs",
            "input_extra",
            "with_pieces",
            "verbose",
            "user",
            "metadata",
            "store",
            "audio",
            "unknown",
        ),
    }
)
TYPICAL = st.sampled_from(
    [
        *(
            None,
            True,
            False,
            0,
            1,
            -1,
            3,
            0.5,
            1e308,
            -1e9,
            2**63,
            "",
            "a",
            "stories",
            "json",
            "auto",
            "required",
            "none",
        ),
        *(
            [],
            {},
            [[]],
            [1, 2],
            ["a"],
            [MESSAGES[0]],
            [TOOL],
            SCHEMA,
            {"type": "json_object"},
            {"type": "text"},
        ),
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "x"}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        {"type": "function", "function": {"name": "stop"}},
        {"include_usage": True},
        {"effort": "high"},
        {"1": 5},
        "\x00",
        "<|end|><tool_call>",
        "once upon " * 700,
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def check(answer, path, body):
    """An answer is no fault of the server, and is whole."""
    assert answer.status_code < 500, (path, body, answer.text[:500])
    kind = answer.headers["content-type"].partition(";")[0]
    if kind == "application/json":
        value = json.loads(answer.content)
        assert answer.status_code == 200 or "error" in value
    elif kind == "text/event-stream":
        assert b"internal_error" not in answer.content, (path, body, answer.text[-500:])
    else:
        assert [json.loads(line) for line in answer.content.splitlines()]


def changed(body, changes):
    """A body with fields replaced; a field of the options of Ollama's API goes there, too."""
    made = {**body, **changes}
    if isinstance(body.get("options"), dict) and isinstance(made.get("options"), dict):
        made["options"] = {
            **made["options"],
            **{name: changes[name] for name in changes if name in FIELDS[:20]},
        }
    return made


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@pytest.mark.parametrize("path", BODIES)
@settings(max_examples=40, **COMMON)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), TYPICAL | JSON, min_size=1, max_size=3))
def test_half_right_bodies_are_answered_or_refused(http, path, changes):
    body = changed(BODIES[path], changes)
    check(http.post(path, json=body), path, body)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses"])
@settings(max_examples=25, **COMMON)
@given(
    messages=st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer", "x"])},
            optional={
                "content": TYPICAL | JSON,
                "tool_calls": st.just([CALL]) | JSON,
                "tool_call_id": JSON,
                "name": JSON,
                "type": st.sampled_from(
                    ["message", "function_call", "function_call_output", "reasoning", "x"]
                ),
                "arguments": JSON,
                "output": JSON,
            },
        )
        | JSON,
        max_size=4,
    )
)
def test_random_messages_are_answered_or_refused(http, path, messages):
    name = "input" if path == "/v1/responses" else "messages"
    body = {**BODIES[path], name: messages}
    check(http.post(path, json=body), path, body)


@settings(max_examples=60, **COMMON)
@given(
    data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
    path=st.sampled_from([*BODIES]),
)
def test_bodies_that_are_no_requests_are_refused(http, data, path):
    check(http.post(path, content=data), path, data)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"prompt": "\\ud800\\u0000", "max_tokens": 1}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": [' + b"0," * 50_000 + b"0]}",
        b'{"prompt": "a", "max_tokens": 1, "grammar": "start: start"}',
        b'{"prompt": "a", "max_tokens": 1, "regex": "(a{1,1000}){1,1000}"}',
    ],
)
def test_hostile_bodies_are_refused(http, data):
    for path in ("/v1/chat/completions", "/v1/completions", "/completion", "/v1/messages"):
        check(http.post(path, content=data), path, data[:80])


def test_nothing_is_left_after_all_that(stories, server):
    assert is_at_rest(stories)
    assert server.application.state.pool.describe("stories")["num_requests"] == 0
