"""The official client of Ollama's API against the server."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import httpx
import pytest
from servers import running

ollama = pytest.importorskip("ollama", reason="the ollama client is not installed")

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]
GREEDY = {"temperature": 0, "num_predict": 12}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def client(server):
    return ollama.Client(host=server.url)


@pytest.fixture
def expected(stories):
    return stories.chat(MESSAGES, temperature=0, max_tokens=12)


def test_a_chat_answers_as_the_model_alone_does(client, expected):
    answer = client.chat("stories", MESSAGES, options=GREEDY)
    assert answer.message.content == expected.text
    assert (answer.done, answer.done_reason) == (True, "length")
    assert (answer.prompt_eval_count, answer.eval_count) == (expected.usage.num_prompt_tokens, 12)
    assert answer.total_duration > 0


def test_a_stream_of_lines_has_the_same_text(client, expected):
    parts = list(client.chat("stories:latest", MESSAGES, options=GREEDY, stream=True))
    assert "".join(part.message.content for part in parts) == expected.text
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == 12


def test_a_prompt_is_answered_by_the_template_or_continued_raw(client, stories, expected):
    assert client.generate("stories", MESSAGES[0]["content"], options=GREEDY).response == expected.text
    raw = client.generate("stories", "Once upon a time", raw=True, options=GREEDY)
    assert raw.response == stories.generate("Once upon a time", temperature=0, max_tokens=12).text
    parts = client.generate("stories", MESSAGES[0]["content"], options=GREEDY, stream=True)
    assert "".join(part.response for part in parts) == expected.text


def test_log_probabilities_are_those_of_the_model(client, stories):
    answer = client.chat("stories", MESSAGES, options=GREEDY, logprobs=True, top_logprobs=2)
    expected = stories.chat(MESSAGES, temperature=0, max_tokens=12, logprobs=2).logprobs
    assert [item.logprob for item in answer.logprobs] == [item.logprob for item in expected]
    assert [len(item.top_logprobs) for item in answer.logprobs] == [2] * 12
    parts = client.generate("stories", "Once", raw=True, options=GREEDY, logprobs=True, stream=True)
    assert sum(len(part.logprobs or ()) for part in parts) == 12


def test_the_form_of_the_text(client):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    answer = client.chat("stories", MESSAGES, format=schema, options={"seed": 1})
    assert json.loads(answer.message.content)["a"] in (1, 2)


def test_models_are_listed_and_shown(client, stories):
    (model,) = client.list().models
    assert model.model == "stories" and model.details.family == "llama" and model.size > 1_000_000
    shown = client.show("stories")
    assert shown.template == stories.chat_template and "completion" in shown.capabilities
    assert shown.modelinfo["llama.block_count"] == 6
    (loaded,) = client.ps().models
    assert loaded.model == "stories" and loaded.size > 0


def test_a_model_is_loaded_and_unloaded_by_an_empty_request(stories):
    with running() as server:
        client = ollama.Client(host=server.url)
        assert client.ps().models == []
        assert client.generate("stories").done_reason == "load"
        assert len(client.ps().models) == 1
        assert client.chat("stories", keep_alive=0).done_reason == "unload"
        for _ in range(100):
            if not client.ps().models:
                break
        assert client.ps().models == []
        assert client.chat("stories", MESSAGES, options=GREEDY, keep_alive="5m").message.content
        left = client.ps().models[0].expires_at - datetime.now(timezone.utc)
        assert 290 < left.total_seconds() <= 300


def test_vectors_come_from_the_model_loaded_for_them():
    with running() as server:
        client = ollama.Client(host=server.url)
        answer = client.embed("stories", ["a cat", "a dog"])
        assert len(answer.embeddings) == 2 and len(answer.embeddings[0]) == 128
        assert answer.prompt_eval_count > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"options": {"temperatur": 1}}, "did you mean 'temperature'"),
        ({"options": {"num_ctx": 100_000}}, "num_ctx"),
        ({"messages": [{"role": "user", "content": "a", "images": [b"x"]}]}, "images"),
        ({"think": True}, "no way to ask"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"keep_alive": "nan"}, "keep_alive"),
        (
            {"messages": [{"role": "user", "content": "once upon " * 600}]},
            r"\d+ tokens but the context holds 512",
        ),
    ],
)
def test_wrong_requests_are_refused_in_the_apis_shape(client, change, sentence):
    with pytest.raises(ollama.ResponseError, match=sentence) as caught:
        client.chat(**{"model": "stories", "messages": MESSAGES, **change})
    assert caught.value.status_code == 400


def test_an_unknown_model_is_not_found(client, server):
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("llama3", MESSAGES)
    assert caught.value.status_code == 404
    assert set(httpx.get(f"{server.url}/api/version").json()) == {"version"}
