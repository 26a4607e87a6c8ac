"""OpenAI's Responses API, embeddings and reranking, with the official client where it has them."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
from servers import running

import torchless

openai = pytest.importorskip("openai", reason="the openai client is not installed")

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]
GREEDY = {"model": "stories", "temperature": 0, "max_output_tokens": 16}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def expected(stories):
    return stories.chat(MESSAGES, temperature=0, max_tokens=16)


def test_a_response_answers_as_the_model_alone_does(client, expected):
    for given in (MESSAGES[0]["content"], MESSAGES):
        answer = client.responses.create(input=given, **GREEDY)
        assert answer.output_text == expected.text
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert answer.usage.input_tokens == expected.usage.num_prompt_tokens
        assert answer.usage.output_tokens == 16


def test_a_stream_grows_to_the_same_response(client, expected):
    events = list(client.responses.create(input=MESSAGES[0]["content"], stream=True, **GREEDY))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == expected.text and len(deltas) > 3
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == expected.text


def test_a_function_is_called_and_its_output_read(client):
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
    schema["additionalProperties"] = False
    tool = {"type": "function", "name": "weather", "parameters": schema, "strict": True}
    options = {**GREEDY, "max_output_tokens": 60, "tools": [tool]}
    for stream in (False, True):
        answer = client.responses.create(input="Weather?", tool_choice="required", stream=stream, **options)
        if stream:
            answer = list(answer)[-1].response
        (call,) = answer.output
        assert (call.type, call.name, json.loads(call.arguments)) == (
            "function_call",
            "weather",
            {"city": "Oslo"},
        )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    further = [{"role": "user", "content": "Weather?"}, call.model_dump(), result]
    assert client.responses.create(input=further, tool_choice="none", **options).output_text


def test_the_form_of_the_text_and_log_probabilities(client, stories):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    text = {"format": {"type": "json_schema", "name": "a", "schema": schema}}
    answer = client.responses.create(
        model="stories", input="A number.", text=text, include=["message.output_text.logprobs"]
    )
    assert json.loads(answer.output_text)["a"] in (1, 2)
    assert len(answer.output[0].content[0].logprobs) == answer.usage.output_tokens


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"previous_response_id": "resp_1"}, "nothing is kept between calls"),
        ({"store": True}, "nothing is stored"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "nothing is cut"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, r"tools\[0\].type"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, r"input\[0\].type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"extra_body": {"top_q": 1}}, "did you mean 'top_p'"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, change, sentence):
    with pytest.raises(openai.BadRequestError, match=sentence):
        client.responses.create(**{"input": "Hello", **GREEDY, **change})


# -- vectors --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectors_server():
    with running() as server:
        yield server


def test_embeddings_are_those_of_the_model(vectors_server):
    texts = ["a cat", "a dog", "Once upon a time"]
    with torchless.load(task="embed", threads=1) as model:
        expected = model.embed(texts)
    with openai.OpenAI(base_url=f"{vectors_server.url}/v1", api_key="none") as client:
        answer = client.embeddings.create(
            model="stories", input=texts
        )  # base64, as that client asks by itself
        np.testing.assert_array_equal(
            np.array([item.embedding for item in answer.data], np.float32), expected
        )
        plain = client.embeddings.create(
            model="stories", input=texts[0], encoding_format="float", dimensions=16
        )
        assert len(plain.data[0].embedding) == 16 and plain.usage.prompt_tokens > 0
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            client.embeddings.create(model="stories", input="a", dimensions=5000)
        with pytest.raises(openai.BadRequestError, match=r"input\[1\]"):
            client.embeddings.create(model="stories", input=["a", 1])


def test_documents_are_ranked_or_the_model_is_refused_by_name(server):
    body = {"query": "a", "documents": ["b", {"text": "c"}]}
    answer = httpx.post(f"{server.url}/v1/rerank", json=body)
    assert answer.status_code == 400 and "rerank" in answer.json()["error"]["message"]
    answer = httpx.post(f"{server.url}/v1/rerank", json={"query": "a", "documents": [1]})
    assert answer.status_code == 400
