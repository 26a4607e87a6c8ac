"""Chat templates that come with torchless: what llama.cpp makes of the same conversation, and what they hold."""

from __future__ import annotations

import ctypes

import pytest

from torchless.errors import TemplateError
from torchless.text.chat_template import ChatTemplate
from torchless.text.templates import template_names, template_source

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there."},
    {"role": "user", "content": "Who are you?"},
]

THEIRS = {  # our name: llama.cpp's, and the texts of the begin and the end token, which it leaves to its tokenizer
    "chatml": ("chatml", "", ""),
    "llama3": ("llama3", "", ""),
    "gemma": ("gemma", "", ""),
    "phi3": ("phi3", "", ""),
    "zephyr": ("zephyr", "", "<|endoftext|>"),
    "vicuna": ("vicuna", "", "</s>"),
}


def render(name: str, messages=MESSAGES, *, bos: str = "<s>", eos: str = "</s>") -> str:
    return ChatTemplate(template_source(name), bos, eos).render(messages)


@pytest.mark.parametrize("name", THEIRS)
def test_llama_cpp_renders_the_same(name):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    theirs, bos, eos = THEIRS[name]
    chat = (llama_cpp.llama_chat_message * len(MESSAGES))()
    for item, message in zip(chat, MESSAGES, strict=True):
        item.role, item.content = message["role"].encode(), message["content"].encode()
    buffer = ctypes.create_string_buffer(4096)
    length = llama_cpp.llama_chat_apply_template(
        theirs.encode(), chat, len(MESSAGES), True, buffer, len(buffer)
    )
    assert length > 0
    assert render(name, bos=bos, eos=eos) == buffer.raw[:length].decode()


def test_llama_2_and_mistral_put_the_system_message_into_the_first_question():
    assert render("llama2") == (
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST] Hi there. </s><s>[INST] Who are you? [/INST]"
    )
    assert render("mistral") == "<s>[INST] Be kind.\n\nHello [/INST] Hi there.</s>[INST] Who are you? [/INST]"


@pytest.mark.parametrize("name", template_names())
def test_every_template_renders_all_that_is_said_in_order(name):
    text = render(name)
    places = [text.index(message["content"]) for message in MESSAGES]
    assert places == sorted(places)
    assert len(render(name, MESSAGES[1:2])) < len(text)


@pytest.mark.parametrize("name", template_names())
def test_without_a_generation_prompt_it_ends_with_what_was_said(name):
    template = ChatTemplate(template_source(name), "<s>", "</s>")
    without = template.render(MESSAGES[:3], add_generation_prompt=False)
    assert template.render(MESSAGES[:3]).startswith(without)
    assert without.index("Hi there.") > without.index("Hello")


def test_a_name_that_is_none_is_refused():
    with pytest.raises(TemplateError, match="no chat template is called 'nosuch'; there are alpaca, chatml"):
        template_source("nosuch")
    with pytest.raises(TemplateError):
        template_source("../templates/chatml")
