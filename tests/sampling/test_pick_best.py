"""A sampler picks the same token from the largest logits as from all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchless.errors import TorchlessError
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

HISTORY = np.arange(7, dtype=np.int32)


@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([3, 20, 10**6]),  # few levels: many ties
    temperature=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([1, 5, 40]),
    top_p=st.sampled_from([1.0, 0.6]),
    min_p=st.sampled_from([0.0, 0.1]),
)
def test_best_and_all_give_the_same_token(
    seed: int, levels: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    random = np.random.default_rng(seed)
    logits = (random.integers(0, levels, 3000) / levels * 8).astype(np.float32)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed % 2**31)
    sampler = Sampler(params)
    assert sampler.num_best is not None
    ids = (-logits).argsort(kind="stable")[: sampler.num_best + seed % 3].astype(np.int32)
    assert sampler.pick_best(ids, logits[ids], HISTORY) == sampler.pick(logits, HISTORY)


@pytest.mark.parametrize(
    ("params", "num_best"),
    [
        (SamplingParams(temperature=0), 1),
        (SamplingParams(temperature=0.8, top_k=30, seed=1), 30),
        (SamplingParams(temperature=0.8, top_k=0, seed=1), None),
        (SamplingParams(temperature=0, repeat_penalty=1.2), None),
        (SamplingParams(temperature=0.8, top_k=30, seed=1, repeat_penalty=1.2), None),
        (SamplingParams(temperature=0, logit_bias={3: 1.0}), None),
    ],
)
def test_steps_that_look_at_all_logits_get_all(params: SamplingParams, num_best: int | None) -> None:
    assert Sampler(params).num_best == num_best


@pytest.mark.parametrize("peak", [np.nan, np.inf])
def test_damaged_logits_are_reported(peak: float) -> None:
    with pytest.raises(TorchlessError, match="finite"):
        Sampler(SamplingParams(temperature=0)).pick_best(
            np.int32([4, 0]), np.array([peak, 1], np.float32), HISTORY
        )
