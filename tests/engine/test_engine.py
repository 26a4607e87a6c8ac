"""Whatever runs beside a sequence, however it is chunked or preempted: its tokens are the same."""

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits
from fake_sequences import VOCAB, alone, computed, finish, make, new_tokens, prompt_of, scoring
from hypothesis import given, settings
from hypothesis import strategies as st

from torchless.backends.base import PAGE_TOKENS
from torchless.engine.engine import Engine
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams


@pytest.mark.parametrize("max_batch_tokens", [1, 7, 64, 500])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_chunk_size_does_not_change_the_tokens(max_batch_tokens, length):
    engine = Engine(FakeExecutor(max_batch_tokens=max_batch_tokens))
    sequence = make(prompt_of(length), 40)
    engine.add(sequence)
    finish(engine, sequence)
    assert new_tokens(sequence) == alone(prompt_of(length), 40, SamplingParams(seed=3))
    assert sequence.finish_reason == "length"


# (tokens of the prompt, tokens to generate or 0 to score the prompt, step of arrival)
work = st.lists(st.tuples(st.integers(1, 90), st.integers(0, 50), st.integers(0, 12)), min_size=1, max_size=7)


@settings(deadline=None, max_examples=100)
@given(work, st.integers(1, 48), st.integers(1, 5), st.integers(5, 14), st.integers(0, 4), st.booleans())
def test_any_mix_of_sequences_gives_each_its_solo_tokens(
    work, max_batch_tokens, max_outputs, num_pages, num_state_slots, fast
):
    """Few pages: sequences wait and are preempted. Late arrivals join a batch that is under way.

    With state slots (0: none) no more sequences run than there are, and none goes on with another's state. In fast mode
    long prompts are computed in fast arithmetic, and nothing else is.
    """
    executor = FakeExecutor(
        max_batch_tokens=max_batch_tokens,
        max_outputs=max_outputs,
        num_pages=num_pages,
        num_state_slots=num_state_slots,
        fast=fast,
    )
    engine = Engine(executor)
    params = [SamplingParams(seed=i, temperature=0.0 if i % 2 else 1.0) for i in range(len(work))]
    sequences = [
        make(prompt_of(n, i), new, params[i]) if new else scoring(prompt_of(n, i))
        for i, (n, new, _) in enumerate(work)
    ]
    pending = sorted(range(len(work)), key=lambda i: work[i][2])
    num_steps = 0
    while pending or not all(s.finish_reason for s in sequences):
        while pending and work[pending[0]][2] <= num_steps:
            engine.add(sequences[pending.pop(0)])
        engine.step()
        num_steps += 1
        assert num_steps < 20_000
        held = [p for s in sequences for p in s.page_ids[: s.num_pages].tolist()]
        assert engine.pages.num_free == num_pages - len(set(held))
        assert not num_state_slots or len(engine.scheduler.running) <= num_state_slots
        arrivals = [s.rank for s in engine.scheduler.sequences()]
        assert arrivals == sorted(arrivals), "an older sequence waits behind a younger one"
    for i, (length, num_new, _) in enumerate(work):
        prompt = prompt_of(length, i)
        if num_new:
            assert new_tokens(sequences[i]) == alone(prompt, num_new, params[i], fast)
        else:
            kept = computed(prompt, fast)
            expected = [expected_logits(kept[: j + 1], VOCAB) for j in range(length)]
            np.testing.assert_array_equal(sequences[i].logits, expected)
    assert engine.pages.num_free == num_pages
    assert engine.scheduler.is_idle


def test_preemption_happens_and_costs_no_token():
    engine = Engine(FakeExecutor(num_pages=4))
    old, young = make(prompt_of(30), 90), make(prompt_of(30, 1), 60)
    engine.add(old)
    engine.add(young)
    finish(engine, old, young)
    assert old.num_preemptions == 0 and young.num_preemptions >= 1
    assert new_tokens(old) == alone(prompt_of(30), 90, SamplingParams(seed=3))
    assert new_tokens(young) == alone(prompt_of(30, 1), 60, SamplingParams(seed=3))


def test_a_prompt_under_way_keeps_the_pages_that_it_will_need():
    engine = Engine(FakeExecutor(num_pages=4, max_outputs=3))
    old, young = scoring(prompt_of(100)), make(prompt_of(5, 1), 60)
    engine.add(old)
    engine.add(young)
    finish(engine, old, young)
    assert young.num_preemptions == 0
    assert new_tokens(young) == alone(prompt_of(5, 1), 60, SamplingParams(seed=3))


def test_a_decode_that_this_step_had_chosen_can_still_be_preempted():
    """The oldest takes, as it grows, a page that the second was promised; the second takes the third's."""
    engine = Engine(FakeExecutor(num_pages=4, max_outputs=4))
    first, second, third = make(prompt_of(31), 40), scoring(prompt_of(64, 1)), make(prompt_of(1, 2), 40)
    for sequence in (first, second, third):
        engine.add(sequence)
    finish(engine, first, second, third)
    assert [s.num_preemptions for s in (first, second, third)] == [0, 0, 1]
    assert new_tokens(first) == alone(prompt_of(31), 40, SamplingParams(seed=3))
    assert new_tokens(third) == alone(prompt_of(1, 2), 40, SamplingParams(seed=3))
    np.testing.assert_array_equal(second.logits[63], expected_logits(prompt_of(64, 1), VOCAB))


def test_decodes_are_not_held_up_by_a_long_prompt():
    executor = FakeExecutor(max_batch_tokens=16)
    engine = Engine(executor)
    talking, reading = make(prompt_of(3), 30), make(prompt_of(200, 1), 1)
    engine.add(talking)
    engine.step()
    engine.add(reading)
    for _ in range(10):
        before = talking.num_tokens
        engine.step()
        assert talking.num_tokens == before + 1
    assert reading.num_computed_tokens == 150


def test_younger_decodes_are_not_held_up_by_older_scoring():
    engine = Engine(FakeExecutor(max_batch_tokens=4, max_outputs=3))
    scored = scoring(prompt_of(60))
    talking = make(prompt_of(1, 1), 15)
    engine.add(scored)
    engine.add(talking)
    while talking.num_tokens == 1:
        engine.step()
    while not talking.finish_reason:
        before = talking.num_tokens
        engine.step()
        assert talking.num_tokens == before + 1
    assert not scored.finish_reason


def test_waiting_sequences_start_in_the_order_of_their_arrival():
    engine = Engine(FakeExecutor(num_pages=4, max_outputs=2))
    sequences = [make(prompt_of(10, i), 5) for i in range(6)]
    for sequence in sequences:
        engine.add(sequence)
    order = []
    while len(order) < 6:
        order += engine.step().finished
    assert order == sequences


def test_pages_are_taken_as_tokens_arrive_and_released_at_the_end():
    executor = FakeExecutor(num_pages=10)
    engine = Engine(executor, has_prefix_cache=False)
    sequence = make(prompt_of(20), 30)
    engine.add(sequence)
    engine.step()
    assert sequence.num_pages == 1 and executor.released == []
    used = sequence.page_ids[0]
    finish(engine, sequence)
    assert used in executor.released and len(executor.released) == 2
    assert engine.pages.num_free == 10 and engine.pages.num_kept == 0


def test_the_last_token_needs_no_page():
    """A context of exactly one page: the token that fills it is never computed."""
    engine = Engine(FakeExecutor(num_pages=1))
    sequence = make(prompt_of(PAGE_TOKENS - 1), 1)
    engine.add(sequence)
    finish(engine, sequence)
    assert sequence.num_tokens == PAGE_TOKENS


@pytest.mark.parametrize("stage", ["waiting", "prefill", "decode", "done"])
def test_cancel_frees_the_pages_at_once(stage):
    executor = FakeExecutor(num_pages=8, max_batch_tokens=16)
    engine = Engine(executor)
    sequence, other = make(prompt_of(40), 20), make(prompt_of(9, 1), 20)
    engine.add(sequence)
    engine.add(other)
    for _ in range({"waiting": 0, "prefill": 1, "decode": 5, "done": 50}[stage]):
        engine.step()
    engine.cancel(sequence)
    assert sequence.num_pages == 0
    assert engine.pages.num_free == 8 - other.num_pages
    assert sequence.finish_reason == ("length" if stage == "done" else "cancelled")
    finish(engine, other)
    assert new_tokens(other) == alone(prompt_of(9, 1), 20, SamplingParams(seed=3))
    engine.cancel(sequence)  # again: nothing happens
    assert engine.pages.num_free == 8


def test_accept_ends_a_sequence_and_sees_every_token():
    seen = []

    def accept(token):
        seen.append(token)
        return "stop" if len(seen) == 5 else None

    engine = Engine(FakeExecutor())
    sequence = make([1], 20, accept=accept)
    engine.add(sequence)
    finish(engine, sequence)
    assert sequence.finish_reason == "stop"
    assert seen == alone([1], 5, SamplingParams(seed=3))


@pytest.mark.parametrize("max_outputs", [1, 3, 8])
@pytest.mark.parametrize("max_batch_tokens", [1, 16])
def test_scoring_returns_the_logits_of_every_token(max_outputs, max_batch_tokens):
    engine = Engine(FakeExecutor(max_outputs=max_outputs, max_batch_tokens=max_batch_tokens))
    prompt = prompt_of(70)
    sequence = scoring(prompt)
    beside = make([2, 3], 30)
    engine.add(beside)
    engine.add(sequence)
    finish(engine, sequence, beside)
    for i in range(70):
        np.testing.assert_array_equal(sequence.logits[i], expected_logits(prompt[: i + 1], VOCAB))
    assert new_tokens(beside) == alone([2, 3], 30, SamplingParams(seed=3))
    assert engine.pages.num_free == 64


def whole_engine(**options):
    executor = FakeExecutor(**options)
    executor.needs_whole_sequences = True
    return Engine(executor), executor


def test_whole_sequences_are_never_cut():
    engine, executor = whole_engine(max_batch_tokens=32, max_outputs=32)
    sequences = [scoring(prompt_of(length)) for length in (20, 13, 1, 30, 31, 5)]
    for sequence in sequences:
        engine.add(sequence)
    finish(engine, *sequences)
    runs = [np.diff(batch.run_starts).tolist() for batch in executor.batches]
    assert sorted(length for lengths in runs for length in lengths) == [1, 5, 13, 20, 30, 31]
    assert len(runs) < len(sequences)
    assert all(batch.positions[start] == 0 for batch in executor.batches for start in batch.run_starts[:-1])


def test_a_sequence_that_no_step_can_take_whole_is_refused():
    engine, _ = whole_engine(max_batch_tokens=32, max_outputs=16)
    with pytest.raises(ValueError, match="a sequence of 17 tokens does not fit a step of 16 as a whole"):
        engine.add(scoring(prompt_of(17)))
    engine.add(make(prompt_of(31), 1))
    with pytest.raises(ValueError, match="33 tokens does not fit a step of 32"):
        engine.add(make(prompt_of(32), 1))


def test_the_digest_covers_exactly_the_rows_that_were_sampled_from():
    digests = []
    for max_batch_tokens, neighbours in ((1, 0), (64, 0), (16, 3)):
        engine = Engine(FakeExecutor(max_batch_tokens=max_batch_tokens, num_pages=6))
        for i in range(neighbours):
            engine.add(make(prompt_of(20, i + 5), 40))
        sequence = make(prompt_of(50), 20, hash_logits=True)
        engine.add(sequence)
        finish(engine, sequence)
        digests.append(sequence.digest.hexdigest())
    assert len(set(digests)) == 1 and len(digests[0]) == 16
    other = make(prompt_of(50), 21, hash_logits=True)
    engine.add(other)
    finish(engine, other)
    assert other.digest.hexdigest() != digests[0]


class Interrupting(Sampler):
    """A sampler that is interrupted once."""

    def __init__(self, params, at):
        super().__init__(params)
        self.at = at

    def pick(self, logits, history):
        if len(history) == self.at:
            self.at = -1
            raise KeyboardInterrupt
        return super().pick(logits, history)


@pytest.mark.parametrize("num_state_slots", [0, 2])
@pytest.mark.parametrize("where", ["executor", "sampler"])
def test_an_interrupted_step_is_repeated_without_a_trace(where, num_state_slots):
    executor = FakeExecutor(num_pages=6, num_state_slots=num_state_slots)
    engine = Engine(executor)
    first, second = (make(prompt_of(20, i), 40, hash_logits=True) for i in range(2))
    if where == "executor":
        executor.fail_at = {1: KeyboardInterrupt(), 9: KeyboardInterrupt(), 20: RuntimeError("device lost")}
    else:
        second.sampler = Interrupting(SamplingParams(seed=3), at=30)
    engine.add(first)
    engine.add(second)
    num_interruptions = 0
    while not (first.finish_reason and second.finish_reason):
        try:
            engine.step()
        except (KeyboardInterrupt, RuntimeError):
            num_interruptions += 1
            engine.recover()
    assert num_interruptions == (3 if where == "executor" else 1)
    assert engine.pages.num_free == 6
    for i, sequence in enumerate((first, second)):
        assert new_tokens(sequence) == alone(prompt_of(20, i), 40, SamplingParams(seed=3))
    clean = Engine(FakeExecutor())
    again = make(prompt_of(20, 1), 40, hash_logits=True)
    clean.add(again)
    finish(clean, again)
    assert second.digest.hexdigest() == again.digest.hexdigest()


@pytest.mark.parametrize("num_state_slots", [0, 2])
def test_a_sequence_whose_reader_is_interrupted_is_cancelled_and_the_others_go_on(num_state_slots):
    executor = FakeExecutor(num_pages=6, num_state_slots=num_state_slots)
    engine = Engine(executor)

    def accept(token):
        raise KeyboardInterrupt

    broken, fine = make(prompt_of(5), 40, accept=accept), make(prompt_of(20, 1), 40)
    engine.add(broken)
    engine.add(fine)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    engine.recover()
    assert broken.finish_reason == "cancelled"
    assert engine.pages.num_free == 6 - fine.num_pages
    finish(engine, fine)
    assert new_tokens(fine) == alone(prompt_of(20, 1), 40, SamplingParams(seed=3))
    assert engine.pages.num_free == 6


def test_a_sequence_that_can_never_fit_is_refused():
    with pytest.raises(ValueError, match="may need 3 pages"):
        Engine(FakeExecutor(num_pages=2)).add(make(prompt_of(60), 20))


def test_a_step_without_work_does_nothing():
    result = Engine(FakeExecutor()).step()
    assert result.num_tokens == 0 and result.finished == []


def test_memory_of_pages_that_were_taken_away_comes_back_when_nothing_is_left():
    """A preempted sequence's pages go to another, and what that does not need must not stay behind."""
    executor = FakeExecutor(num_pages=6, max_batch_tokens=64)
    engine = Engine(executor)
    sequences = [make(prompt_of(40, i), 60) for i in range(4)]
    for sequence in sequences:
        engine.add(sequence)
    used = set()
    while not engine.scheduler.is_idle:
        engine.step()
        used |= {page for batch in executor.batches[-1:] for page in batch.page_ids.tolist()}
        used -= set(executor.released)
        executor.released.clear()
    assert engine.scheduler.num_preemptions > 0
    kept = used - set(executor.released)
    assert len(kept) == engine.pages.num_kept and not kept & set(engine.pages.empty_ids)
