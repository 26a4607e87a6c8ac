"""Hostile chat templates end in an error, soon and without much memory."""

from __future__ import annotations

import time

import pytest

from torchless.errors import TemplateError
from torchless.text import template_sandbox
from torchless.text.chat_template import ChatTemplate

USER = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__",
        "''.__class__",
        "''['__class__']",
        "'' | attr('__class__')",
        "'' | attr('__cla' ~ 'ss__')",
        "messages | map(attribute='__class__') | list",
        "messages | map('attr', '__class__') | list",
        "cycler.__init__.__globals__",
        "joiner.__call__",
        "namespace.__init__",
        "dict.__base__",
        "(1).__class__",
        "raise_exception.__globals__",
        "strftime_now.__closure__",
        "'{0.__class__}'.format(1)",
        "'{x.__class__}'.format_map({'x': 1})",
        "self.__init__",
        "self._TemplateReference__context",
        "messages.append(1)",
        "messages[0].update(a=1)",
        "torchless_render_budget._spend_step()",
    ],
)
def test_pythons_internals_are_out_of_reach(expression: str) -> None:
    with pytest.raises(TemplateError, match=r"stopped by its sandbox \(line 2\).*unsafe"):
        ChatTemplate("\n{{ " + expression + " }}").render(USER)


@pytest.mark.parametrize(
    "source",
    [
        "{{ range(10 ** 9) }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ [1] * 10 ** 10 }}",
        "{{ 2 ** 100000 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%.999999999f' % 1 }}",
        "{{ '%999999999s' | format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ '{x:>999999999}'.format_map({'x': 1}) }}",
        "{{ 'a' | center(999999999) }}",
        "{{ 'a\nb' | indent(width=999999999) }}",
        "{{ 1.5 | round(999999999) }}",
        "{{ {} | tojson(indent=999999999) }}",
        "{{ 'a'.ljust(999999999) }}",
        "{{ 'a'.zfill(messages[0].width) }}",
        "{{ '\t'.expandtabs(999999999) }}",
        "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
        "{{ ''.join(['a' * 99999] * 99999) }}",
        "{{ (['a' * 99999] * 99999) | join }}",
        "{% set n = namespace(x='aaaa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='aaaa') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
    ],
)
def test_huge_values_are_refused_before_they_are_made(source: str) -> None:
    started = time.process_time()
    with pytest.raises(TemplateError, match=r"at most|Range too big|more than"):
        ChatTemplate(source).render([{**USER[0], "width": 999999999}])
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(999) if false %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{% set a = f(n - 1) ~ f(n - 1) %}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% set torchless_render_budget = 1 %}"
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_endless_work_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(TemplateError, match="takes too long"):
        ChatTemplate(source).render(USER)
    assert time.monotonic() - started < 5


def test_a_long_conversation_stays_within_the_limits() -> None:
    messages = [{"role": "user", "content": "word " * 1000}] * 2000
    text = ChatTemplate("{% for m in messages %}{{ m.role + ': ' + m.content }}\n{% endfor %}").render(
        messages
    )
    assert len(text) == 2000 * (len("user: \n") + 5000)
