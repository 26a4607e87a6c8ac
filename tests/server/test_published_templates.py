"""Conversations with calls, as clients send them, through the published templates of each style."""

from __future__ import annotations

import json

import httpx
import pytest
from servers import running

import torchless

FUNCTION = {"name": "weather", "arguments": '{"city": "Oslo"}'}
CALL = {"id": "call_0123456789abcdef", "type": "function", "function": FUNCTION}
MESSAGES = [
    {"role": "user", "content": "The weather in Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": CALL["id"], "content": "much rain"},
]
SCHEMA = {"type": "object", "properties": {}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "", "parameters": SCHEMA}}]
MODELS = [
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen3-0.6B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "mistralai/Mistral-Nemo-Instruct-2407",
    "CISCai/Mistral-7B-Instruct-v0.3-SOTA-GGUF",
    "deepseek-ai/DeepSeek-R1",
    "zai-org/GLM-5.1",
]


@pytest.mark.parametrize("model", MODELS)
def test_calls_and_results_reach_the_prompt(model, shared_data):
    templates = json.loads((shared_data("chat-templates") / "renderings.json").read_text(encoding="utf-8"))
    template = templates["custom"][model]["chat_template"]
    with torchless.load(chat_template=template, threads=1) as llm, running(llm) as server:
        body = {"messages": MESSAGES, "tools": TOOLS}
        answer = httpx.post(f"{server.url}/apply-template", json=body)
        assert answer.status_code == 200, answer.text
        prompt = answer.json()["prompt"]
        assert "much rain" in prompt and "weather" in prompt
        assert (
            prompt.replace("\\", "").count('"city": "Oslo"') == 1 or "<arg_value>Oslo</arg_value>" in prompt
        )
        counted = httpx.post(f"{server.url}/v1/messages/count_tokens", json={"messages": MESSAGES[:1]})
        assert counted.status_code == 200, counted.text
