"""Sampling parameters: what is accepted, under which names, and what the refusal says."""

import math
import pickle

import numpy as np
import pytest

from torchless.errors import FormatError, InvalidRequestError
from torchless.sampling.parameters import SamplingParams

NAN, INF = math.nan, math.inf


def test_defaults_are_the_documented_ones():
    p = SamplingParams()
    assert (p.temperature, p.top_k, p.top_p, p.min_p) == (0.8, 40, 0.95, 0.05)
    assert (p.repeat_penalty, p.repeat_last_n, p.seed, p.stop) == (1.0, 64, None, ())
    assert (p.max_tokens, p.logit_bias, p.ignore_eos) == (None, {}, False)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "temperature": [-0.1, NAN, INF, -INF, "hot", True, None, 1j, 10**400, [0.5]],
        "top_k": [-1, 1.5, 40.0, "40", True, None, NAN],
        "top_p": [-0.01, 1.01, NAN, INF, "0.9", False, None],
        "min_p": [-0.01, 1.01, NAN, -INF, "0.9", True],
        "repeat_penalty": [0, -1, NAN, INF, True, "1"],
        "repeat_last_n": [-2, 1.0, True, None],
        "seed": [-1, 2**64, 1.0, "1", True],
        "stop": ["", [""], ["a", ""], 3, b"x", [b"x"], [1], {"a": 1}, [None]],
        "max_tokens": [0, -1, 1.0, "5", True, NAN],
        "logit_bias": [
            [1],
            3,
            {1: NAN},
            {1: INF},
            {1: "x"},
            {-1: 1.0},
            {"1": 1.0},
            {True: 1.0},
            {1: True},
            {1: 1e31},
        ],
        "ignore_eos": [1, 0, "yes", None],
    }.items(),
)
def test_nonsense_is_refused_with_name_value_and_range(name, values):
    for value in values:
        with pytest.raises(InvalidRequestError) as caught:
            SamplingParams(**{name: value})
        message = str(caught.value)
        assert name in message and "must be" in message and "got" in message, message


def test_the_refusal_reads_as_a_sentence():
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(top_p=1.5)
    assert str(caught.value) == "top_p must be a number from 0 to 1 (1 is off), got 1.5"


def test_a_long_wrong_value_does_not_flood_the_message():
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(temperature="x" * 10_000)
    assert len(str(caught.value)) < 200


def test_edges_of_the_ranges_are_allowed():
    SamplingParams(temperature=0, top_k=0, top_p=0, min_p=0, repeat_last_n=-1, seed=0, max_tokens=1)
    SamplingParams(temperature=1e6, top_p=1, min_p=1, seed=2**64 - 1, logit_bias={0: -INF, 5: 2})


def test_values_take_their_final_form():
    p = SamplingParams(
        temperature=1, top_k=np.int64(3), stop="END", logit_bias={np.int32(4): 1}, top_p=np.float32(0.5)
    )
    assert type(p.temperature) is float and type(p.top_k) is int and type(p.top_p) is float
    assert p.stop == ("END",)
    assert p.logit_bias == {4: 1.0} and type(next(iter(p.logit_bias))) is int
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


def test_later_changes_to_an_argument_do_not_reach_the_parameters():
    bias = {1: 2.0}
    p = SamplingParams(logit_bias=bias)
    bias[1] = 9.0
    assert p.logit_bias == {1: 2.0}


def test_frozen_hashable_comparable_and_picklable():
    p = SamplingParams(seed=4, logit_bias={1: 2.0}, stop="x")
    with pytest.raises(AttributeError):
        p.seed = 5
    assert hash(p) == hash(SamplingParams(seed=4, logit_bias={1: 2.0}, stop="x"))
    assert pickle.loads(pickle.dumps(p)) == p


@pytest.mark.parametrize("alias", ["n_predict", "num_predict", "max_new_tokens", "max_tokens", "predict"])
def test_names_of_other_tools_for_the_token_limit(alias):
    assert SamplingParams.from_kwargs(**{alias: 7}).max_tokens == 7


def test_several_answers_have_bounds_and_names():
    assert SamplingParams().n == 1 and SamplingParams().best_of is None
    assert SamplingParams.from_kwargs(num_return_sequences=3).n == 3
    assert SamplingParams(n=2, best_of=2).best_of == 2
    for wrong in (0, 129, 1.5, True, "2"):
        with pytest.raises(InvalidRequestError, match="n must be a whole number from 1 to 128"):
            SamplingParams(n=wrong)
    with pytest.raises(InvalidRequestError, match="best_of must be at least n"):
        SamplingParams(n=3, best_of=2)


def test_names_of_other_tools():
    p = SamplingParams.from_kwargs(temp=0.1, repetition_penalty=1.3, stop_sequences=["x"], penalty_last_n=5)
    assert (p.temperature, p.repeat_penalty, p.stop, p.repeat_last_n) == (0.1, 1.3, ("x",), 5)


@pytest.mark.parametrize("alias", ["n_predict", "num_predict", "predict"])
def test_minus_one_means_no_limit_only_under_the_names_where_users_write_it(alias):
    assert SamplingParams.from_kwargs(**{alias: -1}).max_tokens is None
    with pytest.raises(InvalidRequestError):
        SamplingParams.from_kwargs(**{alias: -3})
    with pytest.raises(InvalidRequestError):
        SamplingParams.from_kwargs(max_tokens=-1)


def test_none_stands_for_the_default():
    p = SamplingParams.from_kwargs(temperature=None, top_k=None, seed=None, stop=None, max_tokens=None)
    assert p == SamplingParams()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("temperatur", "temperature"), ("topk", "top_k"), ("max_token", "max_tokens"), ("seeds", "seed")],
)
def test_an_unknown_keyword_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(TypeError, match=f"{wrong!r}; did you mean '{right}'"):
        SamplingParams.from_kwargs(**{wrong: 1})


def test_an_unknown_keyword_without_likeness_lists_the_names():
    with pytest.raises(TypeError, match="it takes banned, best_of"):
        SamplingParams.from_kwargs(zzz=1)


def test_one_concept_given_twice_is_refused():
    with pytest.raises(TypeError, match="'temperature' twice"):
        SamplingParams.from_kwargs(temp=0.5, temperature=0.7)


def test_a_model_s_own_defaults():
    metadata = {
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
        "general.sampling.penalty_repeat": 1.1,
    }
    p = SamplingParams.from_metadata(metadata)
    assert (p.temperature, p.top_k, p.repeat_penalty, p.top_p) == (0.6, 20, 1.1, 0.95)
    assert SamplingParams.from_metadata({}) == SamplingParams()
    assert SamplingParams.from_metadata({"general.sampling.top_k": -1}).top_k == 0


@pytest.mark.parametrize("value", [NAN, -1.0, "hot", [1]])
def test_a_model_that_recommends_nonsense_is_refused_by_key(value):
    with pytest.raises(FormatError, match=r"general\.sampling\.temp"):
        SamplingParams.from_metadata({"general.sampling.temp": value})


def test_updated_keeps_what_is_not_named():
    base = SamplingParams(top_k=5, seed=9)
    assert base.updated(temp=0) == SamplingParams(temperature=0, top_k=5, seed=9)


def test_a_seed_is_drawn_when_none_is_given():
    seeds = {SamplingParams().seeded().seed for _ in range(8)}
    assert len(seeds) > 1 and all(0 <= seed < 2**32 for seed in seeds)
    assert SamplingParams(seed=0).seeded().seed == 0
