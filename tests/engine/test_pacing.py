"""Prompts that join steps in which others decode: how many of their tokens, and that no answer depends on it."""

from __future__ import annotations

import numpy as np
import pytest
from fake_executor import FakeExecutor

import torchless
from torchless.engine import engine as engine_module
from torchless.engine.engine import Engine
from torchless.engine.pacing import StepPacing, slowdown
from torchless.engine.sequence import Sequence
from torchless.errors import InvalidRequestError
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams


class Machine(FakeExecutor):
    """With a clock: a step takes 20 ms, and 1 ms for each row."""

    seconds = 0.0

    def step(self, batch):
        self.seconds += 0.020 + 0.001 * len(batch.token_ids)
        return super().step(batch)


@pytest.fixture
def machine(monkeypatch):
    made = Machine(max_batch_tokens=256, num_pages=64)
    monkeypatch.setattr(engine_module, "perf_counter", lambda: made.seconds)
    return made


def sequence(length, num_new):
    prompt = np.random.default_rng(length).integers(0, 50, length).astype(np.int32)
    return Sequence(prompt, max_tokens=length + num_new, sampler=Sampler(SamplingParams(seed=3)))


def run(engine, short, long):
    """`long` arrives after 20 steps of `short`; returns how long each further step of both took."""
    engine.add(short)
    for _ in range(20):
        engine.step()
    engine.add(long)
    lengths = []
    while short.finish_reason is None or long.finish_reason is None:
        result = engine.step()
        if len(result.runs) == 2:
            lengths.append(result.times.booked - result.times.began)
    return lengths


def test_a_long_prompt_holds_nobody_up_for_long_and_still_gets_on(machine):
    pacing = StepPacing(slowdown=2.0)
    short, long = sequence(5, 150), sequence(1000, 3)
    lengths = run(Engine(machine, pacing=pacing), short, long)
    assert max(lengths) < 2.6 * 0.021  # the first is a guess
    assert sorted(lengths)[len(lengths) // 2] == pytest.approx(2 * 0.021, rel=0.1)
    free = Machine(max_batch_tokens=256, num_pages=64)
    free_short, free_long = sequence(5, 150), sequence(1000, 3)
    assert len(run(Engine(free), free_short, free_long)) < len(lengths)
    assert short.history.tolist() == free_short.history.tolist()
    assert long.history.tolist() == free_long.history.tolist()


def test_without_others_a_prompt_gets_whole_steps(machine):
    engine = Engine(machine, pacing=StepPacing())
    engine.add(sequence(1000, 3))
    assert engine.step().num_tokens == 256


def test_what_decoding_takes_is_measured_again_once_in_a_while():
    pacing = StepPacing(slowdown=3.0)
    for _ in range(5):
        pacing.observe(2, 0, 0.010)
    allowed = []
    for _ in range(200):
        allowed.append(pacing.allowance(2))
        pacing.observe(2, allowed[-1], 0.010 + 0.001 * allowed[-1])
    assert allowed.count(0) == 3 and allowed[-2] == 20
    for _ in range(400):  # the machine is slower now
        count = pacing.allowance(2)
        pacing.observe(2, count, 0.030 + 0.003 * count)
    assert 18 <= pacing.allowance(2) <= 23


def test_a_slow_machine_still_takes_some_tokens_of_a_prompt():
    pacing = StepPacing(slowdown=1.1)
    for _ in range(3):
        pacing.observe(1, 0, 0.010)
        pacing.observe(1, 8, 0.090)
    assert pacing.allowance(1) == 2


@pytest.mark.parametrize("value", [1, 0, -3, True, "2", None, float("inf"), float("nan")])
def test_other_values_are_refused(value):
    with pytest.raises(InvalidRequestError, match='pacing must be "off" or a number above 1'):
        slowdown(value)


def test_it_is_set_at_load():
    with torchless.load(ctx=64, pacing=3) as model:
        assert model.info["pacing"] == 3.0
    with torchless.load(ctx=64, pacing="off") as model:
        assert model.info["pacing"] == "off"
