"""Tools and other values for a chat template, control tokens shown in answers, and requests prepared in a thread."""

from __future__ import annotations

import asyncio

import pytest
from test_llm import EOS, PIECES, executor_of, greedy, ids_of, make

from torchless import Request
from torchless.errors import ContextLengthError, InvalidRequestError

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.name }}{% endfor %}{{ 'th' if thinks else 'no' }}"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
)
MESSAGES = [{"role": "user", "content": "hi"}]


def prompt_of(**options):
    """Token ids of the prompt that the model got."""
    with make(template=TEMPLATE, adds_bos=False) as model:
        model.chat(MESSAGES, max_tokens=1, **options)
        return executor_of(model).batches[0].token_ids.tolist()


def test_a_template_gets_tools_and_further_values():
    assert prompt_of() == ids_of("nohi")
    tools = [{"name": "cat"}, {"name": "dog"}]
    assert prompt_of(tools=tools, chat_template_kwargs={"thinks": True}) == ids_of("catdogthhi")


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "documents"])
def test_what_is_the_templates_own_is_no_further_value(name):
    with make(template=TEMPLATE) as model, pytest.raises(InvalidRequestError, match=name):
        model.chat(MESSAGES, chat_template_kwargs={name: 1})


@pytest.mark.parametrize("options", [{"tools": [{"name": "cat"}]}, {"chat_template_kwargs": {"a": 1}}])
def test_a_plain_text_takes_no_values_of_a_template(options):
    with pytest.raises(InvalidRequestError, match="it needs messages"):
        Request("abc", **options)
    with pytest.raises(InvalidRequestError, match="must be a dictionary"):
        Request(messages=MESSAGES, chat_template_kwargs=[1])


def test_control_tokens_are_shown_where_that_is_asked_for():
    mark = len(PIECES)  # the first of `marks`
    with make(says=[*ids_of("a"), mark, *ids_of("b"), EOS], marks=["<|mark|>"]) as model:
        shown = model.tokenizer.id_to_token(mark)
        assert mark in model.tokenizer.special_ids
        assert greedy(model).text == "ab"
        assert greedy(model, show_special=True).text == f"a{shown}b"


def test_a_prepared_request_streams_and_refuses_before_it_does():
    with make(says="hello", ctx=30) as model:

        async def text_of(prompt):
            chunks = await model.aprepare(Request(prompt, temperature=0, max_tokens=5))
            return "".join([chunk.text async for chunk in chunks])

        assert asyncio.run(text_of("")) == "hello"
        with pytest.raises(ContextLengthError):
            asyncio.run(text_of("a" * 100))
