"""Bounds and multiples of numbers: what follows the grammar is within them, reckoned in decimal fractions."""

from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

llguidance = pytest.importorskip("llguidance")

from torchless.constraints.grammars import grammar_from_schema  # noqa: E402
from torchless.errors import GrammarError  # noqa: E402

TOKENS = llguidance.LLTokenizer("byte")

wholes = st.one_of(
    st.integers(-30, 30), st.integers(-(2**53), 2**53), st.sampled_from([0, 9, 10, 99, 100, -1, -10])
)
fractions = st.builds(
    lambda n, e: float(Decimal(n).scaleb(-e)), st.integers(-(10**9), 10**9), st.integers(0, 9)
)
bounds = st.one_of(wholes, fractions)
keywords = st.dictionaries(
    st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]), bounds, max_size=3
)
kinds = st.sampled_from(["integer", "number"])


def matcher_of(schema):
    """A matcher, or None for a schema that allows nothing."""
    try:
        grammar = grammar_from_schema(schema)
        matcher = llguidance.LLMatcher(TOKENS, grammar.text, log_level=0)
        if matcher.is_error():
            raise grammar.refusal(matcher.get_error())
    except GrammarError as error:
        assume("less than 1 away" not in str(error))  # refused though some numbers would do
        return None
    return matcher


def accepts(matcher, text):
    matcher.reset()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


def is_valid(schema, value):
    return (
        value >= Decimal(repr(schema.get("minimum", -(10**30))))
        and value <= Decimal(repr(schema.get("maximum", 10**30)))
        and value > Decimal(repr(schema.get("exclusiveMinimum", -(10**30))))
        and value < Decimal(repr(schema.get("exclusiveMaximum", 10**30)))
        and (schema["type"] == "number" or value == value.to_integral_value())
    )


def near(bound):
    """Decimal fractions around a bound."""
    exact = Decimal(repr(bound))
    steps = [Decimal(1).scaleb(-digits) for digits in (0, 1, 3, 9, 12)]
    return [exact, -exact, *(exact + step for step in steps), *(exact - step for step in steps)]


@settings(deadline=None, max_examples=300)
@given(kinds, keywords, st.lists(bounds, max_size=5))
def test_a_number_follows_the_grammar_where_it_is_within_its_bounds(kind, limits, others):
    schema = {"type": kind, **limits}
    matcher = matcher_of(schema)
    values = [Decimal(repr(other)) for other in others]
    values += [value for bound in limits.values() for value in near(bound)]
    for value in values:
        text = f"{value:f}"
        if "." in text and kind == "integer":
            continue
        if matcher is None:
            assert not is_valid(schema, value), f"{schema} is refused and allows {text}"
        elif accepts(matcher, text):
            assert is_valid(schema, value), f"{text} follows {schema}"


@settings(deadline=None, max_examples=150)
@given(kinds, st.sampled_from([1, 2, 3, 7, 10, 60, 0.5, 0.25, 0.1, 0.01, 2.5]), st.integers(-(10**6), 10**6))
def test_a_number_follows_the_grammar_where_it_is_a_multiple(kind, multiple, number):
    schema = {"type": kind, "multipleOf": multiple}
    matcher = matcher_of(schema)
    assert matcher is not None
    step = Decimal(str(multiple))
    for value in (Decimal(number), Decimal(number) * step, Decimal(number) / 100):
        padded = (
            f"{value.quantize(step):f}" if value % step == 0 else f"{value:f}"
        )  # written as the multiple is
        for text in (padded, f"{value.normalize():f}"):
            if accepts(matcher, text):
                assert value % step == 0, f"{text} follows {schema}"
        if value % step == 0 and (kind == "number" or step == step.to_integral_value()):
            assert accepts(matcher, padded), f"{padded} does not follow {schema}"
