"""Drafted tokens change how many steps an answer takes, and never the answer."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from torchless.engine.drafters import Guess
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.engine.speculation import Speculation
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

VOCAB = 50


def alone(prompt: list[int], num_new: int, params: SamplingParams) -> list[int]:
    """The tokens that follow `prompt`, from the definition: one at a time, nothing drafted."""
    sampler, tokens = Sampler(params), list(prompt)
    for _ in range(num_new):
        tokens.append(sampler.pick(expected_logits(tokens, VOCAB), np.array(tokens, np.int32)))
    return tokens[len(prompt) :]


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng((seed, length)).integers(0, VOCAB, length).tolist()


class Oracle:
    """A drafter that knows what follows, and mixes it with nonsense as a seed says."""

    is_free = True

    def __init__(self, answers: dict[int, list[int]], seed: int, share: float) -> None:
        self.answers = answers
        self.names: dict[Sequence, int] = {}  # sequence -> whose answer it will get
        self.random = np.random.default_rng(seed)
        self.share = share
        self.forgotten: list[Sequence] = []

    def draft(self, sequences: list[Sequence], num_tokens: int, width: int) -> list[list[Guess]]:
        return [[self._guess(sequence, num_tokens) for _ in range(width)] for sequence in sequences]

    def _guess(self, sequence: Sequence, num_tokens: int) -> Guess:
        done = sequence.num_tokens - sequence.num_prompt_tokens
        truth = self.answers[self.names[sequence]][done : done + num_tokens]
        noise = self.random.integers(0, VOCAB, num_tokens).tolist()
        tokens = [
            truth[i] if i < len(truth) and self.random.random() < self.share else noise[i]
            for i in range(num_tokens)
        ]
        return Guess(tokens, ["oracle"] * num_tokens)

    def forget(self, sequence: Sequence) -> None:
        self.forgotten.append(sequence)

    def close(self) -> None:
        pass


def finish(engine: Engine, sequences: list[Sequence], limit: int = 20_000) -> int:
    for step in range(limit):
        if all(s.finish_reason for s in sequences):
            return step
        engine.step()
    raise AssertionError("the engine does not finish")


def make(prompt: list[int], num_new: int, params: SamplingParams, **options: Any) -> Sequence:
    ids = np.array(prompt, np.int32)
    return Sequence(ids, max_tokens=len(prompt) + num_new, sampler=Sampler(params), **options)


def new_tokens(sequence: Sequence) -> list[int]:
    tokens: list[int] = sequence.history[sequence.num_prompt_tokens :].tolist()
    return tokens


@pytest.mark.parametrize("num_tokens", range(1, 17))
@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_any_number_of_drafted_tokens_gives_the_same_answer(num_tokens: int, share: float) -> None:
    for params in (SamplingParams(temperature=0.0), SamplingParams(seed=3), SamplingParams(seed=4, top_k=7)):
        answer = alone(prompt_of(40), 60, params)
        oracle = Oracle({0: answer}, num_tokens, share)
        engine = Engine(FakeExecutor(), Speculation([oracle], num_tokens, is_adaptive=False))
        sequence = make(prompt_of(40), 60, params)
        oracle.names[sequence] = 0
        engine.add(sequence)
        num_steps = finish(engine, [sequence])
        assert new_tokens(sequence) == answer
        if share == 1.0:  # two steps for the prompt and the first token, then num_tokens + 1 in each
            most = min(num_tokens, 7)  # the executor gives at most 8 rows
            assert num_steps == 2 + -(-59 // (most + 1))
        if share == 0.0:
            assert sequence.num_kept_tokens < sequence.num_drafted_tokens / 4


work = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(
    work,
    st.integers(1, 48),
    st.integers(1, 9),
    st.integers(5, 14),
    st.integers(1, 16),
    st.floats(0.2, 1.0),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_drafts_with_batching_preemption_and_cancellation(
    work: Any,
    max_batch_tokens: int,
    max_outputs: int,
    num_pages: int,
    num_tokens: int,
    share: float,
    is_adaptive: bool,
    seed: int,
) -> None:
    """Few pages: sequences wait and are preempted; drafts take only what is left.

    How many steps that takes may depend on the clock, so cancellations come from a generator of their own.
    """
    random = Random(seed)
    executor = FakeExecutor(max_batch_tokens=max_batch_tokens, max_outputs=max_outputs, num_pages=num_pages)
    params = [SamplingParams(seed=i, temperature=0.0 if i % 2 else 1.0) for i in range(len(work))]
    answers = {i: alone(prompt_of(n, i), new, params[i]) for i, (n, new, _) in enumerate(work)}
    oracle = Oracle(answers, num_tokens, share)
    speculation = Speculation([oracle], num_tokens, is_adaptive=is_adaptive)
    engine = Engine(executor, speculation)
    sequences = [make(prompt_of(n, i), new, params[i]) for i, (n, new, _) in enumerate(work)]
    oracle.names = {sequence: i for i, sequence in enumerate(sequences)}
    pending = sorted(range(len(work)), key=lambda i: work[i][2])
    cancelled = set()
    num_steps = 0
    while pending or not all(s.finish_reason for s in sequences):
        while pending and work[pending[0]][2] <= num_steps:
            engine.add(sequences[pending.pop(0)])
        engine.step()
        if random.random() < 0.01:
            victim = random.randrange(len(sequences))
            if victim not in pending and sequences[victim].finish_reason is None:
                engine.cancel(sequences[victim])
                cancelled.add(victim)
        num_steps += 1
        assert num_steps < 20_000
        held = [p for s in sequences for p in s.page_ids[: s.num_pages].tolist()]
        assert len(set(held)) == len(held)
        assert engine.pages.num_free == num_pages - len(held)
    for i, sequence in enumerate(sequences):
        found = new_tokens(sequence)
        assert found == answers[i][: len(found)] if i in cancelled else found == answers[i]
    assert engine.pages.num_free == num_pages
    assert set(oracle.forgotten) == set(sequences) and not speculation._rates


def test_a_stop_inside_a_draft_ends_the_answer_there() -> None:
    params = SamplingParams(temperature=0.0)
    answer = alone(prompt_of(20), 30, params)
    oracle = Oracle({0: answer}, 0, 1.0)
    engine = Engine(FakeExecutor(), Speculation([oracle], 7, is_adaptive=False))
    told: list[int] = []

    def accept(token: int) -> Any:
        told.append(token)
        return "stop" if len(told) == 6 else None

    sequence = make(prompt_of(20), 30, params, accept=accept)
    oracle.names[sequence] = 0
    engine.add(sequence)
    finish(engine, [sequence])
    assert told == new_tokens(sequence) == answer[:6]
    assert sequence.finish_reason == "stop"


def test_the_hash_of_logits_is_that_of_plain_decoding() -> None:
    params = SamplingParams(seed=5)
    answer = alone(prompt_of(20), 30, params)
    hashes = set()
    for share in (None, 0.6, 1.0):
        oracle = Oracle({0: answer}, 1, share or 0.0)
        drafting = Speculation([oracle], 5, is_adaptive=False) if share is not None else None
        engine = Engine(FakeExecutor(), drafting)
        sequence = make(prompt_of(20), 30, params, hash_logits=True)
        oracle.names[sequence] = 0
        engine.add(sequence)
        finish(engine, [sequence])
        assert sequence.digest is not None
        hashes.add(sequence.digest.hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize("fail_at", [3, 4, 5])
def test_a_step_that_broke_off_is_computed_again(fail_at: int) -> None:
    params = SamplingParams(seed=3)
    answers = {i: alone(prompt_of(20, i), 40, params) for i in range(2)}
    oracle = Oracle(answers, 1, 0.8)
    executor = FakeExecutor()
    executor.fail_at = {fail_at: KeyboardInterrupt()}
    engine = Engine(executor, Speculation([oracle], 5, is_adaptive=False))
    sequences = [make(prompt_of(20, i), 40, params) for i in range(2)]
    oracle.names = {sequence: i for i, sequence in enumerate(sequences)}
    for sequence in sequences:
        engine.add(sequence)
    with pytest.raises(KeyboardInterrupt):
        finish(engine, sequences)
    engine.recover()
    finish(engine, sequences)
    assert [new_tokens(s) for s in sequences] == list(answers.values())


def test_scoring_sequences_are_not_drafted() -> None:
    engine = Engine(FakeExecutor(), Speculation([Oracle({}, 0, 1.0)], 5, is_adaptive=False))
    logits = np.full((30, VOCAB), np.nan, np.float32)
    sequence = Sequence(np.array(prompt_of(30), np.int32), max_tokens=30, logits=logits)
    engine.add(sequence)
    finish(engine, [sequence])
    np.testing.assert_array_equal(logits[7], expected_logits(prompt_of(30)[:8], VOCAB))
