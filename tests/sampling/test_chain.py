"""The chain against a plain float64 reading of each step's definition, and its statistics against softmax."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from torchless.errors import InvalidRequestError, TorchlessError
from torchless.sampling.candidates import Candidates, largest
from torchless.sampling.chain import Sampler, _pick_random
from torchless.sampling.parameters import SamplingParams
from torchless.sampling.random_numbers import CounterRandom

EOS = (2,)


def distribution(logits, params, history):
    """Probability of each token by the definitions: full sort, float64, nothing clever."""
    z = np.array(logits, np.float64)
    for token, bias in params.logit_bias.items():
        z[token] += bias
    if params.ignore_eos:
        z[list(EOS)] = -np.inf
    recent = (
        history
        if params.repeat_last_n < 0
        else history[len(history) - min(params.repeat_last_n, len(history)) :]
    )
    for token in set(recent.tolist()) if params.repeat_penalty != 1 else ():
        z[token] = z[token] / params.repeat_penalty if z[token] > 0 else z[token] * params.repeat_penalty
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))
    if params.temperature == 0:
        p = np.zeros(len(z))
        p[order[0]] = 1
        return p
    if params.top_k:
        order = order[: params.top_k]
    p = np.exp(z[order] - z[order[0]])
    sums = np.cumsum(p / p.sum())
    if params.top_p < 1:
        order = order[: np.searchsorted(sums, params.top_p) + 1]
    if params.min_p > 0:
        order = [i for i in order if z[i] >= z[order[0]] + math.log(params.min_p)]
    weights = np.exp((z[order] - z[order[0]]) / params.temperature)
    p = np.zeros(len(z))
    p[order] = weights / weights.sum()
    return p


def draw(logits, params, count, history_start=10):
    """`count` picks at different positions; the history ends alike each time."""
    sampler = Sampler(params, EOS)
    filler = np.arange(6, dtype=np.int32)
    long = np.concatenate((np.full(count + history_start, 5, np.int32), filler))
    return np.array([sampler.pick(logits, long[-(history_start + i) :]) for i in range(count)])


def chi_square_is_plausible(picks, p):
    """Pearson's test at about 5 standard deviations; unlikely tokens are pooled."""
    observed = np.bincount(picks, minlength=len(p)).astype(float)
    assert observed[p == 0].sum() == 0, "a token was picked that the steps had removed"
    expected = p * len(picks)
    rare = expected < 10
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = max(len(expected) - 1, 1)
    statistic = ((observed - expected) ** 2 / expected).sum()
    return statistic < freedom + 5 * math.sqrt(2 * freedom) + 10


LOGITS = (np.random.default_rng(5).normal(size=60) * 2).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0},
        {"temperature": 0.5, "top_k": 0, "top_p": 1, "min_p": 0},
        {"temperature": 2.5, "top_k": 0, "top_p": 1, "min_p": 0},
        {"temperature": 1, "top_k": 7, "top_p": 1, "min_p": 0},
        {"temperature": 1, "top_k": 0, "top_p": 0.7, "min_p": 0},
        {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0.1},
        {"temperature": 0.8, "top_k": 0, "top_p": 0.9, "min_p": 0.05},
        {},
        {"repeat_penalty": 1.5, "repeat_last_n": 4, "top_k": 0},
        {"logit_bias": {3: 4.0, 7: -math.inf}, "ignore_eos": True, "temperature": 1.5},
    ],
    ids=str,
)
def test_picks_follow_the_float64_distribution(options):
    params = SamplingParams(seed=11, **options)
    p = distribution(LOGITS, params, np.arange(6, dtype=np.int32)[-10:])
    # The last tokens of every history are 0 .. 5, preceded by 5s: the recent set is the same throughout.
    assert chi_square_is_plausible(draw(LOGITS, params, 6_000), p)


def test_the_test_of_the_distribution_can_fail():
    params = SamplingParams(seed=11, temperature=1, top_k=0, top_p=1, min_p=0)
    p = distribution(
        LOGITS, SamplingParams(temperature=1.1, top_k=0, top_p=1, min_p=0), np.empty(0, np.int32)
    )
    assert not chi_square_is_plausible(draw(LOGITS, params, 6_000), p)


def test_different_seeds_are_independent_streams():
    params = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}
    picks = np.array(
        [Sampler(SamplingParams(seed=s, **params)).pick(LOGITS, np.zeros(5, np.int32)) for s in range(8000)]
    )
    p = distribution(LOGITS, SamplingParams(**params), np.empty(0, np.int32))
    assert chi_square_is_plausible(picks, p)


params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 0.8, 1.0, 3.0]),
    top_k=st.integers(0, 30),
    top_p=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    repeat_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    repeat_last_n=st.integers(-1, 12),
    seed=st.integers(0, 2**64 - 1),
    logit_bias=st.dictionaries(st.integers(0, 19), st.sampled_from([-math.inf, -2.0, 3.0]), max_size=4),
    ignore_eos=st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(
    arrays(np.float32, 20, elements=st.integers(-6, 6).map(float)),
    params_strategy,
    st.lists(st.integers(0, 19), min_size=1, max_size=20),
)
def test_the_pick_is_always_a_token_that_the_definition_allows(logits, params, history):
    """Integer logits make ties common."""
    history = np.array(history, np.int32)
    p = distribution(logits, params, history)
    pick = Sampler(params, EOS).pick(logits, history)
    if params.temperature == 0:
        assert p[pick] == 1
    # A nucleus that ends within rounding of top_p may be one token longer or shorter.
    slack = SamplingParams(
        **{**{f: getattr(params, f) for f in params.__slots__}, "top_p": min(1, params.top_p + 1e-6)}
    )
    assert p[pick] > 0 or distribution(logits, slack, history)[pick] > 0


@given(
    arrays(np.float32, st.integers(1, 1500), elements=st.integers(-40, 40).map(float)), st.integers(1, 1600)
)
@settings(deadline=None, max_examples=50)
def test_largest_equals_a_full_stable_sort(values, count):
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert largest(values, count).tolist() == expected


@pytest.mark.parametrize("count", [1, 40, 1000, 20_000])
@pytest.mark.parametrize("kind", ["normal", "rounded", "constant", "forbidden", "scattered"])
def test_largest_of_a_big_vocabulary(kind, count):
    values = np.random.default_rng(1).normal(size=131_075).astype(np.float32)
    if kind == "rounded":
        values = np.round(values)
    elif kind == "constant":
        values[:] = 3
    elif kind == "forbidden":
        values[10:] = -np.inf
    elif kind == "scattered":
        values[np.arange(len(values)) % 5000 != 7] = -np.inf
    expected = np.lexsort((np.arange(len(values)), -values.astype(np.float64)))[:count]
    np.testing.assert_array_equal(largest(values, count), expected)


def test_greedy_takes_the_lowest_id_of_a_tie():
    logits = np.float32([1, 5, 5, 0])
    for options in ({}, {"repeat_penalty": 2.0}, {"logit_bias": {3: 1.0}}):
        assert Sampler(SamplingParams(temperature=0, **options)).pick(logits, np.int32([0])) == 1


def test_penalties_and_biases_act_on_greedy_too():
    logits = np.float32([4, 5, -1])
    assert Sampler(SamplingParams(temperature=0, repeat_penalty=2)).pick(logits, np.int32([1])) == 0
    assert Sampler(SamplingParams(temperature=0, logit_bias={2: 10})).pick(logits, np.int32([1])) == 2
    assert (
        Sampler(SamplingParams(temperature=0, ignore_eos=True), eos_ids=(1,)).pick(logits, np.int32([0])) == 0
    )


def test_the_logits_are_left_as_they_are():
    logits = LOGITS.copy()
    logits.flags.writeable = False
    params = SamplingParams(seed=1, repeat_penalty=1.5, logit_bias={1: 3.0}, ignore_eos=True)
    for temperature in (0, 0.7):
        Sampler(params.updated(temperature=temperature), EOS).pick(logits, np.int32([4, 5]))
    np.testing.assert_array_equal(logits, LOGITS)


def test_a_pick_depends_on_seed_and_position_and_on_nothing_before():
    params = SamplingParams(seed=5, temperature=2)
    history = np.zeros(50, np.int32)
    one = Sampler(params)
    forward = [one.pick(LOGITS, history[:n]) for n in range(1, 50)]
    other = Sampler(params)
    backward = [other.pick(LOGITS, history[:n]) for n in range(49, 0, -1)]
    assert forward == backward[::-1]
    assert len(set(forward)) > 3
    assert forward != [
        Sampler(SamplingParams(seed=6, temperature=2)).pick(LOGITS, history[:n]) for n in range(1, 50)
    ]


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("position", [0, 1, 77, 2**40])
def test_random_numbers_are_philox_keyed_by_seed_and_position(seed, position):
    expected = np.random.Generator(np.random.Philox(key=seed, counter=position)).random()
    numbers = CounterRandom(seed)
    numbers.uniform(3)
    assert numbers.uniform(position) == expected


def test_random_numbers_stay_what_they_are():
    """Golden values: a seed means the same in every version."""
    numbers = CounterRandom(42)
    assert [numbers.uniform(i) for i in range(3)] == GOLDEN_UNIFORMS


GOLDEN_UNIFORMS = [0.8201981478608876, 0.36812845090913937, 0.8767979674463799]


def test_the_smallest_random_number_picks_no_forbidden_token():
    sampler = Sampler(
        SamplingParams(seed=1, top_k=0, top_p=1, min_p=0, logit_bias={0: -math.inf, 1: -math.inf})
    )
    sampler._random.uniform = lambda position: 0.0
    assert sampler.pick(LOGITS, np.int32([1])) == 2


@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 1e9])
def test_extreme_temperatures_do_not_overflow(temperature):
    with np.errstate(all="raise", under="ignore"):
        pick = Sampler(SamplingParams(seed=1, temperature=temperature, top_k=0, top_p=1, min_p=0)).pick(
            LOGITS, np.int32([1])
        )
    if temperature < 1:
        assert pick == LOGITS.argmax()


def test_extreme_penalties_do_not_overflow():
    for penalty in (1e-300, 1e300):
        for temperature in (0, 1):
            params = SamplingParams(seed=1, temperature=temperature, repeat_penalty=penalty)
            assert 0 <= Sampler(params).pick(LOGITS, np.int32([1, 2, 3])) < 60


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_broken_logits_are_reported(value, temperature):
    logits = LOGITS.copy()
    logits[17] = value
    with pytest.raises(TorchlessError, match="damaged"):
        Sampler(SamplingParams(seed=1, temperature=temperature)).pick(logits, np.int32([1]))


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_forbidding_every_token_is_reported(temperature):
    params = SamplingParams(seed=1, temperature=temperature, logit_bias=dict.fromkeys(range(60), -math.inf))
    with pytest.raises(InvalidRequestError, match="forbid every token"):
        Sampler(params).pick(LOGITS, np.int32([1]))


def test_a_pick_from_128k_tokens_takes_less_than_a_millisecond():
    logits = np.random.default_rng(1).normal(size=131_072).astype(np.float32) * 3
    history = np.arange(100, dtype=np.int32)
    for options in ({}, {"temperature": 0}, {"top_k": 1000}):
        sampler = Sampler(SamplingParams(seed=1, **options))
        times = []
        for _ in range(30):
            start = time.perf_counter()
            sampler.pick(logits, history)
            times.append(time.perf_counter() - start)
        assert sorted(times)[3] < 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("size", [4095, 4096, 5000, 128_256])
def test_draws_from_a_whole_vocabulary_follow_its_probabilities(size, temperature):
    """Found block by block in single precision: the definition's within a millionth, and never what is forbidden."""
    random = np.random.default_rng(size)
    logits = (random.normal(size=size) * 3).astype(np.float32)
    logits[random.random(size) < 0.5] = -np.inf
    logits[:700] = -np.inf
    logits[-700:] = -np.inf
    params = SamplingParams(temperature=temperature, top_k=0, top_p=1, min_p=0, seed=5)
    sampler = Sampler(params)
    exact = np.exp((logits.astype(np.float64) - logits.max()) / temperature).cumsum()
    exact /= exact[-1]
    uniforms = CounterRandom(5)
    for length in range(1, 400):
        picked = sampler.pick(logits, np.zeros(length, np.int32))
        assert logits[picked] > -np.inf
        uniform = uniforms.uniform(length)
        assert (exact[picked - 1] if picked else 0.0) - 1e-6 <= uniform <= exact[picked] + 1e-6


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53, 0.5])
def test_draws_at_the_ends_take_what_has_a_share(uniform):
    logits = np.full(5000, -np.inf, np.float32)
    logits[[1023, 1024, 3000]] = 0.0
    candidates = Candidates(logits)
    assert _pick_random(candidates, uniform) == {0.0: 1023, 0.5: 1024}.get(uniform, 3000)


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.95, 0.999])
def test_a_nucleus_of_a_whole_vocabulary_is_that_of_the_definition(top_p):
    logits = np.random.default_rng(3).permutation(-1.5 * np.log(np.arange(1, 50_001))).astype(np.float32)
    kept = Sampler(SamplingParams(temperature=1, top_k=0, top_p=top_p, min_p=0, seed=1)).distribution(
        logits, np.zeros(1, np.int32)
    )
    order = np.argsort(-logits, kind="stable")
    p = np.exp(logits[order].astype(np.float64))
    count = int((p.cumsum() / p.sum()).searchsorted(top_p)) + 1
    assert abs(len(kept) - count) <= max(1, count // 10_000)
    assert set(kept) <= set(order[: count + 1].tolist())
