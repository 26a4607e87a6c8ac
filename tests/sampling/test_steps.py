"""What a step does that llama.cpp's has no twin for, and what parameters accept."""

import numpy as np
import pytest

import torchless
from torchless.errors import InvalidRequestError
from torchless.sampling.chain import Sampler
from torchless.sampling.checks import SAMPLERS
from torchless.sampling.parameters import SamplingParams

LOGITS = (np.random.default_rng(5).normal(size=60) * 2).astype(np.float32)


def test_no_end_before_the_wanted_number_of_tokens():
    best = int(LOGITS.argmax())
    sampler = Sampler(SamplingParams(temperature=0, min_tokens=3), eos_ids=(best,), num_prompt_tokens=2)
    picks = [sampler.pick(LOGITS, np.zeros(2 + made, np.int32)) for made in range(5)]
    assert [pick == best for pick in picks] == [False, False, False, True, True]


def test_the_end_stays_where_nothing_else_is_left():
    logits = np.full(4, -np.inf, np.float32)
    logits[1] = 0
    sampler = Sampler(SamplingParams(temperature=0, min_tokens=9), eos_ids=(1,))
    assert sampler.pick(logits, np.zeros(1, np.int32)) == 1


def test_a_processor_changes_a_copy_of_the_logits():
    seen = []

    def only_seven(ids, logits):
        seen.append((ids.tolist(), logits.dtype, len(logits)))
        logits[:] = -np.inf
        logits[7] = 1

    logits = LOGITS.copy()
    sampler = Sampler(SamplingParams(seed=1, processors=only_seven))
    assert sampler.pick(logits, np.array([3, 4], np.int32)) == 7
    assert seen == [([3, 4], np.float32, 60)]
    np.testing.assert_array_equal(logits, LOGITS)


def test_a_processor_that_forbids_everything_is_told():
    def forbid(ids, logits):
        logits[:] = -np.inf

    with pytest.raises(InvalidRequestError, match="processor left -inf"):
        Sampler(SamplingParams(seed=1, processors=[forbid])).pick(LOGITS, np.zeros(1, np.int32))


def test_an_error_in_a_processor_ends_its_request_alone():
    def fail(ids, logits):
        raise ZeroDivisionError("mine")

    with torchless.load() as model:
        with pytest.raises(ZeroDivisionError, match="mine"):
            model.generate("Once", max_tokens=3, processors=fail)
        assert model.generate("Once", max_tokens=3, temperature=0).token_ids


def test_xtc_happens_as_often_as_asked():
    best = int(LOGITS.argmax())
    sampler = Sampler(SamplingParams(seed=2, temperature=0, xtc_probability=0.3, xtc_threshold=0.05))
    history = np.zeros(4000, np.int32)
    rate = np.mean([sampler.pick(LOGITS, history[:n]) != best for n in range(1, 4001)])
    assert abs(rate - 0.3) < 0.03


def test_the_random_numbers_of_xtc_are_not_those_of_the_pick():
    sampler = Sampler(SamplingParams(seed=2))
    words = np.array([[sampler._random.uniform(n, word) for word in (0, 1)] for n in range(500)])
    assert abs(np.corrcoef(words.T)[0, 1]) < 0.15
    assert not (words[:, 0] == words[:, 1]).any()


@pytest.mark.parametrize(
    "given, expected",
    [
        ("kpt", ("top_k", "top_p", "temperature")),
        ("edskypmxt", SAMPLERS),
        ("top_k;typical_p;temp", ("top_k", "typ_p", "temperature")),
        (["xtc"], ("xtc",)),
        ("", ()),
    ],
)
def test_an_order_is_names_or_letters(given, expected):
    assert SamplingParams(samplers=given).samplers == expected


@pytest.mark.parametrize(
    "name, value",
    [
        ("samplers", "top_q"),
        ("samplers", 5),
        ("mirostat", 3),
        ("typical_p", 1.5),
        ("xtc_probability", -0.1),
        ("dry_allowed_length", 0),
        ("dry_sequence_breakers", [""]),
        ("min_tokens", -1),
        ("processors", [3]),
        ("frequency_penalty", float("nan")),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(InvalidRequestError, match=f"{name} must be"):
        SamplingParams(**{name: value})
