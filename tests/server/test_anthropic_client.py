"""The official client of Anthropic's API against the server."""

from __future__ import annotations

import pytest

anthropic = pytest.importorskip("anthropic", reason="the anthropic client is not installed")

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]
GREEDY = {"model": "stories", "max_tokens": 12, "extra_body": {"temperature": 0}}
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def expected(stories):
    return stories.chat(MESSAGES, temperature=0, max_tokens=12)


def test_a_message_answers_as_the_model_alone_does(client, expected):
    answer = client.messages.create(messages=MESSAGES, **GREEDY)
    assert [block.text for block in answer.content] == [expected.text]
    assert (answer.role, answer.type, answer.stop_reason) == ("assistant", "message", "max_tokens")
    assert (
        answer.usage.input_tokens + answer.usage.cache_read_input_tokens == expected.usage.num_prompt_tokens
    )
    assert answer.usage.output_tokens == 12


def test_a_stream_has_the_same_text_and_counts(client, expected):
    with client.messages.stream(messages=MESSAGES, **GREEDY) as stream:
        assert "".join(stream.text_stream) == expected.text
        final = stream.get_final_message()
    assert final.stop_reason == "max_tokens" and final.usage.output_tokens == 12


def test_a_system_text_and_blocks_are_read(client, stories):
    blocks = [{"type": "text", "text": "Tell me a story", "cache_control": {"type": "ephemeral"}}]
    blocks.append({"type": "text", "text": "about a hen."})
    answer = client.messages.create(
        system="Be kind.", messages=[{"role": "user", "content": blocks}], **GREEDY
    )
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Tell me a story\nabout a hen."},
    ]
    assert answer.content[0].text == stories.chat(messages, temperature=0, max_tokens=12).text


def test_a_stop_sequence_is_told(client, stories):
    word = stories.chat(MESSAGES, temperature=0, max_tokens=40).text.split()[3]
    answer = client.messages.create(
        messages=MESSAGES, **{**GREEDY, "max_tokens": 40}, stop_sequences=["zzz", word]
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", word)


def test_tokens_are_counted(client, expected):
    assert client.messages.count_tokens(model="stories", messages=MESSAGES).input_tokens == (
        expected.usage.num_prompt_tokens
    )


def test_a_tool_is_called_and_its_result_read(client):
    pytest.importorskip("llguidance")
    options = {**GREEDY, "max_tokens": 80}
    answer = client.messages.create(
        messages=MESSAGES, tools=[WEATHER], tool_choice={"type": "any"}, **options
    )
    (block,) = answer.content
    assert (
        answer.stop_reason == "tool_use"
        and block.name == "weather"
        and block.input["city"] in ("Oslo", "Rome")
    )
    with client.messages.stream(
        messages=MESSAGES, tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"}, **options
    ) as stream:
        streamed = stream.get_final_message()
    assert [item.input for item in streamed.content] == [block.input]
    result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "rain"}]}
    further = [
        *MESSAGES,
        {"role": "assistant", "content": [block.model_dump()]},
        {"role": "user", "content": [result]},
    ]
    assert client.messages.create(messages=further, tools=[WEATHER], **GREEDY).content


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"messages": [{"role": "wizard", "content": "a"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "reads text"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"extra_body": {"top_q": 1}}, "top_q: no such field; did you mean 'top_p'"),
        (
            {"messages": [{"role": "user", "content": "once upon " * 600}]},
            r"\d+ tokens but the context holds 512",
        ),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, r"tools\[0\].type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "knows no reasoning"),
        ({"extra_body": {"container": "x"}}, "container"),
    ],
)
def test_wrong_requests_are_refused_in_the_apis_shape(client, change, sentence):
    with pytest.raises(anthropic.BadRequestError, match=sentence) as caught:
        client.messages.create(**{"messages": MESSAGES, **GREEDY, **change})
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "invalid_request_error"


def test_models_are_listed(client):
    (model,) = client.models.list().data
    assert (model.id, model.display_name, model.type) == ("stories", "stories", "model")
    assert client.models.retrieve("stories").created_at.year >= 2024


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(messages=MESSAGES, **{**GREEDY, "model": "claude"})
