"""Who comes first when not all can run at once; nobody can tell from the answers."""

import numpy as np
import pytest
from fake_executor import FakeExecutor
from fake_sequences import alone, finish, make, new_tokens, prompt_of
from hypothesis import given, settings
from hypothesis import strategies as st

import torchless
from torchless.engine import scheduler as scheduler_module
from torchless.engine.engine import Engine
from torchless.errors import InvalidRequestError
from torchless.sampling.parameters import SamplingParams


class Clock:
    """Stands in for the scheduler's `time`."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(scheduler_module, "time", made)
    return made


def order_of_ends(engine, sequences):
    ended = []
    while len(ended) < len(sequences):
        ended += [sequences.index(s) for s in engine.step().finished]
    return ended


def test_lower_comes_first_and_equals_keep_their_order(clock):
    engine = Engine(FakeExecutor(max_outputs=1, max_batch_tokens=64))  # one at a time
    sequences = [make(prompt_of(20, i), 3, priority=priority) for i, priority in enumerate((2, 0, -1, 0, -1))]
    for sequence in sequences:
        clock.now += 0.001
        engine.add(sequence)
    assert order_of_ends(engine, sequences) == [2, 4, 1, 3, 0]


def test_an_urgent_one_takes_the_place_of_a_running_one_which_goes_on_later(clock):
    engine = Engine(FakeExecutor(max_outputs=1, max_batch_tokens=64))
    slow, urgent = make(prompt_of(40), 20), make(prompt_of(30, 1), 4, priority=-1)
    engine.add(slow)
    for _ in range(5):
        engine.step()
    engine.add(urgent)
    assert order_of_ends(engine, [slow, urgent]) == [1, 0]
    assert (slow.num_preemptions, urgent.num_preemptions) == (1, 0)
    assert new_tokens(slow) == alone(prompt_of(40), 20, SamplingParams(seed=3))
    assert new_tokens(urgent) == alone(prompt_of(30, 1), 4, SamplingParams(seed=3))


def test_an_urgent_one_takes_pages_and_no_more_than_it_needs(clock):
    engine = Engine(FakeExecutor(num_pages=11, max_outputs=8, max_batch_tokens=256))
    running = [make(prompt_of(64, i), 20) for i in range(3)]  # two pages each, then three
    for sequence in running:
        engine.add(sequence)
    engine.step()
    urgent = make(prompt_of(90, 7), 3, priority=-5)  # three pages
    engine.add(urgent)
    engine.step()
    assert [s.state for s in running] == ["running", "running", "waiting"] and urgent.state == "running"
    finish(engine, *running, urgent)
    for i, sequence in enumerate(running):
        assert new_tokens(sequence) == alone(prompt_of(64, i), 20, SamplingParams(seed=3))


def test_nobody_waits_for_ever(clock):
    """With a new urgent request at every step, one that makes way comes when its seconds are over."""
    engine = Engine(FakeExecutor(max_outputs=1, max_batch_tokens=64))
    patient = make(prompt_of(10), 1, priority=1)
    engine.add(patient)
    began = clock.now
    for i in range(100):
        clock.now += 1.0
        engine.add(make(prompt_of(10, i + 1), 1))
        engine.step()
        if patient.finish_reason is not None:
            break
    assert scheduler_module.PRIORITY_SECONDS <= clock.now - began <= scheduler_module.PRIORITY_SECONDS + 2


acts = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 90), st.integers(0, 30), st.integers(-2, 2)),
    st.tuples(st.just("step"), st.integers(1, 4), st.just(0), st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 100), st.just(0), st.just(0)),
    st.tuples(st.just("break"), st.just(0), st.just(0), st.just(0)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(acts, min_size=1, max_size=30), st.integers(4, 9), st.integers(1, 4), st.sampled_from([0, 3]))
def test_histories(history, num_pages, max_outputs, num_state_slots):
    executor = FakeExecutor(
        num_pages=num_pages, max_outputs=max_outputs, max_batch_tokens=40, num_state_slots=num_state_slots
    )
    engine = Engine(executor)
    everyone = []

    def step():
        engine.step()
        ranks = [s.rank for s in engine.scheduler.sequences()]
        running, waiting = engine.scheduler.running, engine.scheduler.waiting
        assert ranks[: len(running)] == sorted(ranks[: len(running)])
        assert ranks[len(running) :] == sorted(ranks[len(running) :])
        assert all(s.state == "running" for s in running) and all(s.state == "waiting" for s in waiting)
        slots = [s.state_slot for s in running]
        assert not num_state_slots or len(set(slots)) == len(slots)

    for kind, a, b, priority in history:
        if kind == "add" and -(-(a + b) // 32) <= num_pages:
            everyone.append((make(prompt_of(a, len(everyone)), b, priority=priority), a, b, len(everyone)))
            if b:
                engine.add(everyone[-1][0])
            else:
                everyone.pop()
        elif kind == "step":
            for _ in range(a):
                step()
        elif kind == "cancel" and everyone:
            engine.cancel(everyone[a % len(everyone)][0])
        elif kind == "break":
            executor.fail_at[len(executor.batches) + 1] = RuntimeError("broken")
            try:
                step()
            except RuntimeError:
                engine.recover()
            executor.fail_at.clear()
    for _ in range(3000):
        if engine.scheduler.is_idle:
            break
        step()
    assert engine.scheduler.is_idle
    for sequence, length, count, seed in everyone:
        if sequence.finish_reason != "cancelled":
            assert new_tokens(sequence) == alone(prompt_of(length, seed), count, SamplingParams(seed=3))
    assert np.array(engine.pages.num_free) == num_pages


@pytest.mark.parametrize("value", [101, -101, 0.5, True, "high", None])
def test_other_priorities_are_refused(value):
    with pytest.raises(InvalidRequestError, match="priority must be a whole number from -100 to 100"):
        torchless.Request("x", priority=value)


def test_requests_carry_it_and_answers_stay_the_same():
    with torchless.load(ctx=64) as model:
        plain = model.generate("One day", max_tokens=10, seed=1)
        assert model.generate("One day", max_tokens=10, seed=1, priority=-3).token_ids == plain.token_ids
        urgent = torchless.Request("One day", max_tokens=10, seed=1, priority=5)
        assert model.batch([urgent])[0].token_ids == plain.token_ids
