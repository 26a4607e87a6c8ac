"""Tools over HTTP, with the official client of OpenAI's API: constrained calls, and answers that are known."""

from __future__ import annotations

import json

import pytest
from servers import running

openai = pytest.importorskip("openai", reason="the openai client is not installed")
pytest.importorskip("llguidance")

MESSAGES = [{"role": "user", "content": "The weather in Oslo?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Oslo", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
STOP = {"type": "function", "function": {"name": "stop"}}
OPTIONS = {"model": "stories", "messages": MESSAGES, "tools": [WEATHER, STOP], "max_tokens": 100, "seed": 1}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def is_weather(call):
    arguments = json.loads(call.function.arguments)
    return (
        call.function.name == "weather"
        and arguments["city"] in ("Oslo", "Rome")
        and 1 <= arguments["days"] <= 9
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_call_that_must_come_follows_its_schema(client, seed):
    answer = client.chat.completions.create(**{**OPTIONS, "seed": seed, "tool_choice": "required"})
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and not choice.message.content
    assert is_weather(call) or call.function.name == "stop"


def test_a_named_tool_is_called_and_streamed(client):
    named = {"type": "function", "function": {"name": "weather"}}
    whole = client.chat.completions.create(**OPTIONS, tool_choice=named)
    assert is_weather(whole.choices[0].message.tool_calls[0])
    chunks = list(client.chat.completions.create(**OPTIONS, tool_choice=named, stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert len(calls) == 1 and calls[0].index == 0 and calls[0].id.startswith("call_")
    assert calls[0].function.arguments == whole.choices[0].message.tool_calls[0].function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("seed", range(3))
def test_a_strict_tool_leaves_the_model_free_to_answer(client, seed):
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    answer = client.chat.completions.create(**{**OPTIONS, "tools": [strict], "seed": seed, "temperature": 2})
    message = answer.choices[0].message
    assert message.content or is_weather(message.tool_calls[0])


def test_results_go_back_and_none_forbids_calls(client):
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
    }
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    answer = client.chat.completions.create(**{**OPTIONS, "messages": messages, "tool_choice": "none"})
    assert answer.choices[0].message.content and answer.choices[0].message.tool_calls is None


def test_a_strict_tool_with_a_schema_that_cannot_be_enforced_is_refused(client):
    function = {
        "name": "tag",
        "strict": True,
        "parameters": {"type": "object", "properties": {"a": {"not": {}}}},
    }
    with pytest.raises(
        openai.BadRequestError, match=r"tools\[0\].function.parameters.*/properties/a"
    ) as caught:
        client.chat.completions.create(**{**OPTIONS, "tools": [{"type": "function", "function": function}]})
    assert caught.value.code == "unsupported_schema"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tools": [{"type": "web_search"}]}, r"tools\[0\].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, r"tools\[0\].function.name"),
        ({"tools": [STOP, STOP]}, "two tools 'stop'"),
        ({"tool_choice": "sometimes"}, "tool_choice: expected"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "there is weather, stop"),
        ({"tools": [], "tool_choice": "required"}, "no tools to choose"),
        ({"reasoning_effort": "high"}, "no way to ask"),
        ({"reasoning_effort": "much"}, "expected one of none"),
    ],
)
def test_wrong_tools_are_refused_by_name(client, change, sentence):
    with pytest.raises(openai.BadRequestError, match=sentence):
        client.chat.completions.create(**{**OPTIONS, **change})


# -- a model whose answers are known --------------------------------------------------------------

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }}<tool_call>{'name': }</tool_call>{% endfor %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}q{% endif %}</think>"
)


@pytest.fixture
def saying():
    """A server whose model answers every chat by one text, and its client."""
    from test_llm import make

    def start(text, **options):
        return running(make(says=text, after=options.pop("after", 1), template=TEMPLATE, **options))

    return start


def test_reasoning_of_a_fixed_answer_is_split(saying, monkeypatch):
    from torchless.text.reasoning import ReasoningStyle

    monkeypatch.setattr("torchless.server.chat_form.known_style", lambda template: ReasoningStyle("<a", "a>"))
    with (
        saying("<a hm a> yes<end", after=10) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        answer = client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "a"}], temperature=0, max_tokens=16
        )
        assert answer.usage.prompt_tokens == 10
        message = answer.choices[0].message
        assert (message.reasoning_content, message.content) == ("hm", "yes<end")
        assert answer.usage.completion_tokens_details.reasoning_tokens > 0
