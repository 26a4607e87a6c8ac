"""The jinja2 environment that renders chat templates: Hugging Face's settings, in a sandbox, with limits.

A template comes with a model file from strangers. jinja2's immutable sandbox keeps it away from Python's
internals and from changing the messages; the limits here keep it from using up time and memory.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import do_format, do_join, do_replace
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["BUDGET_NAME", "RenderBudget", "TemplateEnvironment"]

MAX_OUTPUT_CHARACTERS = 1 << 26
MAX_VALUE_LENGTH = 1 << 24
MAX_WIDTH = 1 << 16
MAX_STEPS = 20_000_000
MAX_SECONDS = 10.0
_MAX_NUMBER_BITS = 4096
_STEPS_BETWEEN_LOOKS = 32

BUDGET_NAME = "torchless_render_budget"
_NUMBERS = re.compile(r"\d+")
_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*([\d*]*)(?:\.([\d*]*))?")  # Width and precision.
_BRACES = re.compile(
    r"\{[^{}:]*:?([^}]*)"
)  # What stands behind the colon, with "{" for a width from a value.


class RenderBudget:
    """Steps, seconds and characters that one rendering has left."""

    __slots__ = ("_characters", "_deadline", "_steps")

    def __init__(self) -> None:
        self._steps = 0
        self._characters = 0
        self._deadline = time.monotonic() + MAX_SECONDS

    def _spend_step(self) -> None:  # The underscore keeps templates from calling it.
        self._steps += 1
        if self._steps % _STEPS_BETWEEN_LOOKS:
            return
        if self._steps > MAX_STEPS or time.monotonic() > self._deadline:
            _refuse(f"it takes too long ({self._steps} loop steps, at most {MAX_SECONDS:.0f} s)")

    def _spend_text(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MAX_OUTPUT_CHARACTERS:
            _refuse(f"it writes more than {MAX_OUTPUT_CHARACTERS} characters")
        self._spend_step()


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Hugging Face's settings and helpers, plus the limits."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, now: Callable[[], datetime] = datetime.now) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, LoopControlExtension, _Metering]
        )
        self.filters["tojson"] = _to_json
        for name in ("center", "indent", "wordwrap", "truncate", "batch", "slice", "round"):
            self.filters[name] = _with_small_numbers(self.filters[name])
        self.filters["format"] = _guarded_format
        self.filters["join"] = _guarded_join
        self.filters["replace"] = _guarded_replace
        del self.globals["lipsum"]  # Random filler text, as much as one asks for.
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda format: now().strftime(format)  # noqa: A006

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Ends the rendering at the first look at Python's internals, not at the first use of it."""
        raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe")

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """jinja2's hook between parsing and compiling."""
        self.extensions[_Metering.identifier].add_meters(source)  # type: ignore[attr-defined]
        return super()._generate(source, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`left operator right`, unless the result would be huge."""
        if operator == "**":
            _check_power(left, right)
        elif operator == "*":
            _check_product(left, right)
        elif operator == "+":
            _check_length(_length(left) + _length(right))
        elif isinstance(left, str):
            _check_percent(left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Calls what a template calls, unless it is a string method that would give a huge string."""
        if isinstance(__obj, BuiltinMethodType) and isinstance(__obj.__self__, str | bytes):
            _check_method(__obj.__name__, __obj.__self__, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` with the sandbox's checks, and with small widths only."""
        inner = super().wrap_str_format(value)
        if inner is None:
            return None
        pattern: str = value.__self__

        def wrapper(*args: Any, **kwargs: Any) -> str:
            _check_braces(pattern, [*args, *kwargs.values()])
            return inner(*args, **kwargs)

        return wrapper


class _GenerationTag(Extension):
    """``{% generation %}...{% endgeneration %}`` marks the model's own words for training; the text stays."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A block of its own, as Hugging Face has it: what is set inside is not known outside.
        return nodes.CallBlock(self.call_method("_text_of", lineno=line), [], [], body, lineno=line)

    def _text_of(self, caller: Callable[[], str]) -> str:
        return caller()


class _Metering(Extension):
    """Makes every round of a loop and every call of a macro spend a step, and ``~`` look at its size."""

    def add_meters(self, tree: nodes.Template) -> None:
        for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
            call = self.call_method("_step", [nodes.ContextReference()], lineno=node.lineno)
            node.body.insert(0, nodes.ExprStmt(call, lineno=node.lineno))  # type: ignore[attr-defined]
        for concat in list(tree.find_all(nodes.Concat)):
            values = nodes.List(concat.nodes, lineno=concat.lineno)
            concat.nodes = [self.call_method("_join", [values], lineno=concat.lineno)]
        tree.set_environment(self.environment)

    def _step(self, context: Context) -> None:
        budget = context.parent.get(BUDGET_NAME)  # As it was passed in: {% set %} does not reach this.
        if isinstance(budget, RenderBudget):
            budget._spend_step()

    def _join(self, values: list[Any]) -> str:
        texts = [str(value) for value in values]
        _check_length(sum(map(len, texts)))
        return "".join(texts)


def _refuse(what: str) -> NoReturn:
    raise SecurityError(what)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face writes it: without HTML's escapes, other alphabets as they are."""
    if isinstance(indent, int):
        _check_width(indent)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _with_small_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, refusing widths and counts that no prompt needs."""

    @wraps(function)  # Copies jinja2's mark for filters that get the context, too.
    def guarded(*args: Any, **kwargs: Any) -> Any:
        for value in (*args[1:], *kwargs.values()):
            _check_width(value)
        return function(*args, **kwargs)

    return guarded


def _guarded_format(value: Any, *args: Any, **kwargs: Any) -> str:
    _check_percent(str(value), [*args, *kwargs.values()])
    return do_format(value, *args, **kwargs)


@wraps(do_replace)
def _guarded_replace(eval_ctx: Any, text: str, old: str, new: str, count: int | None = None) -> str:
    _check_replacement(str(text), str(old), str(new))
    return do_replace(eval_ctx, text, old, new, count)


@wraps(do_join)
def _guarded_join(eval_ctx: Any, value: Any, d: str = "", attribute: str | int | None = None) -> Any:
    items = list(value)
    _check_length(sum(_length(item) for item in items) + len(str(d)) * len(items))
    return do_join(eval_ctx, items, d, attribute)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _check_length(length: int) -> None:
    if length > MAX_VALUE_LENGTH:
        _refuse(f"it makes a value of {length} characters or elements (at most {MAX_VALUE_LENGTH})")


def _check_width(value: Any) -> None:
    if isinstance(value, int | float) and abs(value) > MAX_WIDTH:
        _refuse(f"it asks for a width or count of {value} (at most {MAX_WIDTH})")


def _check_product(left: Any, right: Any) -> None:
    for value, factor in ((left, right), (right, left)):
        if isinstance(factor, int) and isinstance(value, str | bytes | list | tuple):
            _check_length(len(value) * factor)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(max(base.bit_length(), 1) * abs(exponent))


def _check_bits(bits: int) -> None:
    if bits > _MAX_NUMBER_BITS:
        _refuse(f"it makes a number of {bits} bits (at most {_MAX_NUMBER_BITS})")


def _check_percent(pattern: str, values: Any) -> None:
    """``pattern % values``: widths stand in the pattern, or among the values where it says ``*``."""
    items = list(values.values()) if isinstance(values, dict) else values
    _check_directives(len(pattern), [spec for pair in _PERCENT.findall(pattern) for spec in pair], items, "*")


def _check_braces(pattern: str, values: list[Any]) -> None:
    """``pattern.format(values)``: widths stand in the pattern, or among the values for ``{:{}}``."""
    _check_directives(len(pattern), _BRACES.findall(pattern), values, "{")


def _check_directives(length: int, specs: list[str], values: Any, from_values: str) -> None:
    widths = [int(number[:9]) for spec in specs for number in _NUMBERS.findall(spec)]
    items = values if isinstance(values, list | tuple) else [values]
    if any(from_values in spec for spec in specs):
        widths += [item for item in items if isinstance(item, int)]
    for width in widths:
        _check_width(width)
    _check_length(length + sum(map(abs, widths)) + max(1, len(specs)) * sum(map(_length, items)))


def _check_replacement(text: str, old: str, new: str) -> None:
    count = text.count(old) if old else len(text) + 1
    _check_length(len(text) + count * len(new))


def _check_method(name: str, text: str | bytes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuses string methods whose result would be huge."""
    if name in ("center", "ljust", "rjust", "zfill", "expandtabs"):
        for value in (*args, *kwargs.values()):
            _check_width(value)
        if name == "expandtabs":
            _check_length(len(text) * max([8, *(value for value in args if isinstance(value, int))]))
    elif name == "replace" and isinstance(text, str) and len(args) >= 2:
        _check_replacement(text, str(args[0]), str(args[1]))
    elif name == "join" and len(args) == 1 and isinstance(args[0], list | tuple):
        _check_length(sum(map(_length, args[0])) + len(text) * len(args[0]))
    elif name == "translate":
        _refuse("it calls str.translate, whose result cannot be foreseen")
