"""Reasoning over HTTP on a real model whose template opens it: split off, limited, and told to each API's clients."""

from __future__ import annotations

import httpx
import pytest
from servers import running

import torchless

TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
    "{% if enable_thinking is not defined or enable_thinking %}<think>{% else %}<think></think>{% endif %}"
)
MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]
CHAT = {"messages": MESSAGES, "temperature": 0, "max_tokens": 60}


@pytest.fixture(scope="module")
def thinker():
    with (
        torchless.load(chat_template=TEMPLATE, threads=1) as model,
        running(model) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        yield http, model


def ask(thinker, **changes):
    http, _ = thinker
    return http.post("/v1/chat/completions", json={**CHAT, **changes})


def test_reasoning_that_the_prompt_opens_is_split_off(thinker):
    _, model = thinker
    message = ask(thinker).json()["choices"][0]["message"]
    assert message["content"] == "" and message["reasoning_content"]
    assert model.chat(MESSAGES, temperature=0, max_tokens=60).text.strip() == message["reasoning_content"]


def test_a_template_that_can_is_told_not_to_think(thinker):
    _, model = thinker
    message = ask(thinker, reasoning_effort="none").json()["choices"][0]["message"]
    values = {"enable_thinking": False}
    assert (
        message["content"]
        == model.chat(MESSAGES, temperature=0, max_tokens=60, chat_template_kwargs=values).text
    )
    assert "reasoning_content" not in message


@pytest.mark.parametrize("budget", [1, 7, 20])
def test_reasoning_ends_with_its_budget_and_the_answer_follows(thinker, budget):
    answer = ask(thinker, thinking_budget=budget).json()
    message = answer["choices"][0]["message"]
    _, model = thinker
    free = model.chat(MESSAGES, temperature=0, max_tokens=budget).text
    assert message["reasoning_content"] == free.strip() and message["content"].strip()
    details = answer["usage"]["completion_tokens_details"]
    assert 0 < details["reasoning_tokens"] < answer["usage"]["completion_tokens"]
    again = ask(thinker, thinking_budget=budget, stream=True)
    assert b"reasoning_content" in again.content


def test_a_budget_is_anthropics_too(thinker):
    http, _ = thinker
    thinking = {"type": "enabled", "budget_tokens": 7}
    answer = http.post("/v1/messages", json={**CHAT, "thinking": thinking}).json()
    assert [block["type"] for block in answer["content"]] == ["thinking", "text"]
    answer = http.post(
        "/api/chat",
        json={"model": "stories", "messages": MESSAGES, "stream": False, "options": {"num_predict": 9}},
    )
    assert answer.json()["message"]["thinking"]


@pytest.mark.parametrize("budget", [0, -1, "many"])
def test_a_budget_that_is_none_is_refused(thinker, budget):
    answer = ask(thinker, thinking_budget=budget)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "thinking_budget"


def test_a_model_that_does_not_think_has_no_budget(server):
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "thinking_budget": 5})
    assert answer.status_code == 400 and "knows no reasoning" in answer.json()["error"]["message"]
