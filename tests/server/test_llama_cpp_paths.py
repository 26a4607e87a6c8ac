"""The paths of llama.cpp's server."""

from __future__ import annotations

import json

import httpx
import pytest

PROMPT = "Once upon a time"


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_a_text_goes_to_tokens_and_back(http, stories):
    ids = http.post("/tokenize", json={"content": PROMPT}).json()["tokens"]
    assert ids == stories.tokenizer.encode(PROMPT)
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"content": PROMPT}
    pieces = http.post("/tokenize", json={"content": "h\u00e9<|end|>", "with_pieces": True}).json()["tokens"]
    data = [piece["piece"] for piece in pieces]
    assert (
        b"".join(bytes(item) if isinstance(item, list) else item.encode() for item in data).decode()
        == "h\u00e9<|end|>"
    )
    assert http.post("/detokenize", json={"tokens": [10**9]}).status_code == 400


def test_a_conversation_becomes_a_prompt(http, stories):
    messages = [{"role": "user", "content": "Hello"}]
    answer = http.post("/apply-template", json={"messages": messages}).json()
    assert answer == {"prompt": stories.render_chat(messages)}


def test_a_prompt_is_continued_whole_and_as_events(http, stories):
    body = {"prompt": PROMPT, "n_predict": 8, "temperature": 0, "cache_prompt": True, "return_tokens": True}
    expected = stories.generate(PROMPT, max_tokens=8, temperature=0)
    answer = http.post("/completion", json=body).json()
    assert (answer["content"], answer["tokens"]) == (expected.text, list(expected.token_ids))
    assert (answer["stop_type"], answer["tokens_predicted"]) == ("limit", 8)
    assert answer["generation_settings"]["temperature"] == 0
    with http.stream("POST", "/completion", json={**body, "stream": True, "n_probs": 2}) as stream:
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert "".join(event["content"] for event in events) == expected.text
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    assert sum(len(event.get("completion_probabilities", ())) for event in events) == 8


def test_a_stop_word_is_told(http, stories):
    word = stories.generate(PROMPT, max_tokens=30, temperature=0).text.split()[2]
    answer = http.post("/completion", json={"prompt": PROMPT, "temperature": 0, "stop": [word]}).json()
    assert (answer["stop_type"], answer["stopping_word"]) == ("word", word)


def test_biases_come_as_pairs(http, stories):
    first = stories.generate(PROMPT, max_tokens=1, temperature=0).token_ids[0]
    body = {
        "prompt": PROMPT,
        "n_predict": 1,
        "temperature": 0,
        "return_tokens": True,
        "logit_bias": [[first, False]],
    }
    assert http.post("/completion", json=body).json()["tokens"] != [first]


def test_a_gap_that_the_model_cannot_fill_is_refused(http):
    answer = http.post("/infill", json={"input_prefix": "a", "input_suffix": "b"})
    assert answer.status_code == 400 and "gap" in answer.json()["error"]["message"]


def test_properties_and_work_are_told(http, stories):
    props = http.get("/props").json()
    assert props["default_generation_settings"]["n_ctx"] == stories.context_length
    assert props["chat_template"] == stories.chat_template and props["model_alias"] == "stories"
    (slot,) = http.get("/slots").json()
    assert slot["is_processing"] is False and slot["n_ctx"] == stories.context_length


@pytest.mark.parametrize(
    "body", [{"prompt": PROMPT, "n_probs": 99}, {"prompt": PROMPT, "lora": [1]}, {"prompt": None}]
)
def test_wrong_fields_are_refused(http, body):
    assert http.post("/completion", json=body).status_code == 400
