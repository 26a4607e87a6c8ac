"""Chat templates render as Hugging Face's do: real templates, exact text."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from vocabularies import bpe_metadata

from torchless.errors import TemplateError
from torchless.text.chat_template import ChatTemplate
from torchless.text.tokenizer import Tokenizer

USER = [{"role": "user", "content": "Hello"}]


def render(source: str, messages: Any = USER, **values: Any) -> str:
    return ChatTemplate(source).render(messages, **values)


def test_every_shared_rendering_is_exact(shared_data: Callable[[str], Path]) -> None:
    groups = json.loads((shared_data("chat-templates") / "renderings.json").read_text())
    cases = {**groups["default"], **groups["custom"]}
    assert len(cases) == 27
    for name, case in cases.items():
        values = dict(case["data"])
        tokens = {key: values.pop(key, None) for key in ("bos_token", "eos_token")}
        values.setdefault("add_generation_prompt", False)
        assert ChatTemplate(case["chat_template"], **tokens).render(**values) == case["target"], name


def test_a_template_and_its_formatted_form_say_the_same(shared_data: Callable[[str], Path]) -> None:
    # This group holds no renderings: "target" is the same template in another layout.
    groups = json.loads((shared_data("chat-templates") / "renderings.json").read_text())
    image = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
    for case in groups["formatting"].values():
        for prompt in (False, True):
            texts = [
                render(case[key], [image, answer], add_generation_prompt=prompt)
                for key in ("chat_template", "target")
            ]
            assert texts[0] == texts[1] != ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if true %}\n  a\n{% endif %}\nb", "  a\nb"),  # trim_blocks
        ("  {% if true %}\na{% endif %}", "a"),  # lstrip_blocks
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% for i in range(3) %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
         "1/3False 2/3False 3/3True "),
        ("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}", "Hello"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
        ("{{ {'b': 'é<&>', 'a': [1, none, true]} | tojson }}", '{"b": "é<&>", "a": [1, null, true]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2) }}", '{\n  "b": 1,\n  "a": 2\n}'),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}", '{"a":2,"b":1}'),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{{ '<b>' }}{{ undefined_name }}|{{ tools is none }}{{ documents is none }}", "<b>|TrueTrue"),
        ("{{ bos_token is defined }}{{ add_generation_prompt }}", "FalseTrue"),
        ("{{ '%s-%05d' | format('a', 7) }}{{ '{}{:>4}'.format(1700000000, 'x') }}", "a-000071700000000   x"),
        ("{{ 'a' ~ 1 ~ none ~ [2] }}", "a1None[2]"),
        ("{{ ' x '.strip().upper().replace('X', 'yy') }}{{ ['a', 1] | join('+') }}", "yya+1"),
        ("{% macro f(a, b=2) %}<{{ a }}{{ b }}{{ caller() if caller }}>{% endmacro %}"
         "{{ f(1) }}{% call f(3) %}!{% endcall %}", "<12><32!>"),
        ("{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "6"),
        ("{{ 7 % 4 }}{{ 2 ** 10 }}{{ 'ab' * 2 }}{{ [1] + [2] }}", "31024abab[1, 2]"),
    ],
)  # fmt: skip
def test_settings_and_helpers_are_hugging_faces(source: str, expected: str) -> None:
    assert render(source) == expected


def test_the_clock_is_the_callers() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2024, 7, 26))
    assert template.render(USER) == "26 Jul 2024"


def test_any_further_value_reaches_the_template() -> None:
    source = "{{ enable_thinking }}{{ documents[0].text }}{{ tools[0].name }}{{ pad_token }}"
    template = ChatTemplate(source, special_tokens={"pad_token": "<pad>"})
    values = {"tools": [{"name": "f"}], "documents": [{"text": "d"}], "enable_thinking": False}
    assert template.render(USER, **values) == "Falsedf<pad>"


def test_a_model_may_have_a_template_of_its_own_for_tools() -> None:
    metadata = bpe_metadata(special={"<s>": 3})
    metadata["tokenizer.ggml.bos_token_id"] = 261
    metadata["tokenizer.chat_template"] = "{{ bos_token }}plain"
    metadata["tokenizer.chat_template.tool_use"] = "{{ bos_token }}tools"
    tokenizer = Tokenizer.from_metadata(metadata)
    template = ChatTemplate.from_tokenizer(tokenizer)
    assert template.render(USER) == "<s>plain"
    assert template.render(USER, tools=[{"name": "f"}]) == "<s>tools"
    assert ChatTemplate.from_tokenizer(tokenizer, "tool_use").render(USER) == "<s>tools"
    with pytest.raises(TemplateError, match="'rag', only default, tool_use"):
        ChatTemplate.from_tokenizer(tokenizer, "rag")


def test_without_a_template_the_error_says_what_to_do() -> None:
    for attempt in (
        lambda: ChatTemplate(None),
        lambda: ChatTemplate.from_tokenizer(Tokenizer.from_metadata(bpe_metadata())),
    ):
        with pytest.raises(TemplateError, match=r"no chat template.*chat_template=.*generate"):
            attempt()


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "no messages"),
        ("Hello", "messages is str"),
        ({"role": "user"}, "messages is dict"),
        (["Hello"], r"messages\[0\] is str"),
        ([{"content": "x"}], r"messages\[0\] has the role None"),
        ([*USER, {"role": 1}], r"messages\[1\] has the role 1"),
        ([{"role": "user", "content": 5}], r"messages\[0\] has content of type int"),
    ],
)
def test_malformed_messages_are_named(messages: Any, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        render("{{ messages }}", messages)


def test_content_may_be_absent_or_a_list() -> None:
    messages = [{"role": "assistant", "tool_calls": []}, {"role": "user", "content": [{"type": "text"}]}]
    assert render("{% for m in messages %}{{ m.content is defined }}{% endfor %}", messages) == "FalseTrue"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a\n{% if %}", r"not valid \(line 2\)"),
        ("{% for x in y %}", r"not valid \(line 1\)"),
        ("{{ x | nosuchfilter }}", "nosuchfilter"),
        ("\n\n{{ raise_exception('Roles must alternate') }}", r"refused the messages \(line 3\): Roles must"),
        ("\n{{ messages[0].content + 1 }}", r"failed \(line 2\): TypeError"),
        ("\n{{ nothing.at.all }}", r"failed \(line 2\): UndefinedError"),
        ("{% macro f() %}\n{{ f() }}{% endmacro %}\n{{ f() }}", "calls itself without end"),
        ("{% include 'other' %}", "failed"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "not valid"),
        (b"{{ 1 }}", "found bytes"),
    ],
)
def test_template_errors_name_the_line_and_the_reason(source: Any, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        render(source)


def test_messages_are_left_as_they_were() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    before = json.dumps(messages)
    for change in (
        "messages.append(1)",
        "messages[0].update(a=1)",
        "messages[0].content.clear()",
        "messages.pop()",
    ):
        with pytest.raises(TemplateError, match="sandbox"):
            render("{{ " + change + " }}", messages)
    assert json.dumps(messages) == before


def test_one_template_serves_several_threads() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    wrong: list[str] = []

    def work(name: str) -> None:
        messages = [{"role": "user", "content": name}] * 50
        wrong.extend(text for _ in range(50) if (text := template.render(messages)) != name * 50)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
