"""A constraint in the engine: its mask decides, its end ends, its failure is its own sequence's alone."""

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from torchless.constraints.constraint import masked
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.errors import GrammarError
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

VOCAB = 50


class Remainders:
    """Allows the k-th token to be one that leaves k % 3 when divided by 3; ends after `length` tokens."""

    def __init__(self, length=1000, fails_at=None):
        self.length, self.fails_at, self.accepted, self.num_prepared = length, fails_at, [], 0

    @property
    def must_stop(self):
        return len(self.accepted) == self.length

    @property
    def is_satisfied(self):
        return self.must_stop

    def prepare(self):
        self.num_prepared += 1

    def mask(self):
        if self.fails_at == len(self.accepted):
            raise GrammarError("too complex")
        bits = np.arange(64) % 3 == len(self.accepted) % 3
        return np.packbits(bits, bitorder="little").view(np.uint32)

    def accept(self, token_id):
        assert token_id % 3 == len(self.accepted) % 3
        self.accepted.append(token_id)


def make(prompt, num_new, constraint, **params):
    return Sequence(
        np.array(prompt, np.int32),
        max_tokens=len(prompt) + num_new,
        sampler=Sampler(SamplingParams(seed=3, **params)),
        constraint=constraint,
    )


def alone(prompt, num_new, **params):
    """The tokens by definition."""
    sampler, tokens, constraint = Sampler(SamplingParams(seed=3, **params)), list(prompt), Remainders()
    for _ in range(num_new):
        logits = masked(expected_logits(tokens, VOCAB), constraint.mask())
        tokens.append(sampler.pick(logits, np.array(tokens, np.int32)))
        constraint.accept(tokens[-1])
    return tokens[len(prompt) :]


def new_tokens(sequence):
    return sequence.history[sequence.num_prompt_tokens :].tolist()


def finish(engine, *sequences):
    for _ in range(10_000):
        if all(sequence.finish_reason for sequence in sequences):
            return
        engine.step()
    raise AssertionError("the engine does not finish")


def test_masked_logits_are_minus_infinity_where_the_bit_is_not_set():
    logits = np.arange(VOCAB, dtype=np.float32)
    result = masked(logits, np.array([0b1001, 1 << 17], np.uint32))
    assert np.isfinite(result).nonzero()[0].tolist() == [0, 3, 49]
    assert (result[[0, 3, 49]] == [0, 3, 49]).all() and logits[1] == 1


works = st.lists(
    st.tuples(st.integers(1, 90), st.integers(1, 40), st.booleans(), st.integers(0, 9)),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(works, st.integers(1, 48), st.integers(1, 5), st.integers(5, 14))
def test_any_mix_of_sequences_gives_each_its_constrained_solo_tokens(
    works, max_batch_tokens, max_outputs, num_pages
):
    """Through chunks, preemption and neighbours with and without constraints."""
    engine = Engine(
        FakeExecutor(num_pages=num_pages, max_batch_tokens=max_batch_tokens, max_outputs=max_outputs)
    )
    sequences = []
    for length, num_new, is_greedy, arrival in works:
        temperature = 0.0 if is_greedy else 0.9
        prompt = np.random.default_rng(length).integers(0, VOCAB, length).tolist()
        sequence = make(prompt, num_new, Remainders(), temperature=temperature)
        sequences.append((sequence, arrival, alone(prompt, num_new, temperature=temperature)))
    for step in range(10_000):
        for sequence, arrival, _ in sequences:
            if arrival == step:
                engine.add(sequence)
        if step > 9 and all(sequence.finish_reason for sequence, _, _ in sequences):
            break
        engine.step()
    for sequence, _, expected in sequences:
        assert new_tokens(sequence) == expected
        assert sequence.finish_reason == "length"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_complete_constraint_ends_the_sequence(temperature):
    engine = Engine(FakeExecutor())
    sequence = make([1, 2], 40, Remainders(length=5), temperature=temperature)
    engine.add(sequence)
    finish(engine, sequence)
    assert sequence.finish_reason == "stop"
    assert len(sequence.constraint.accepted) == 5
    assert sequence.constraint.num_prepared == 4  # not behind the last token


def test_a_constraint_that_fails_ends_its_own_sequence_alone():
    engine = Engine(FakeExecutor())
    failing, other = make([1, 2], 20, Remainders(fails_at=3)), make([1, 2], 20, Remainders())
    engine.add(failing)
    engine.add(other)
    finish(engine, failing, other)
    assert failing.finish_reason == "cancelled" and isinstance(failing.failure, GrammarError)
    assert other.finish_reason == "length" and other.failure is None
    assert new_tokens(other) == alone([1, 2], 20)
    assert engine.pages.num_free == engine.pages.num_pages


def test_a_sampler_that_fails_ends_its_own_sequence_alone():
    def fail(ids, logits):
        if len(ids) == 5:
            raise ZeroDivisionError("mine")

    engine = Engine(FakeExecutor())
    failing, other = make([1, 2], 20, None), make([1, 2], 20, None)
    failing.sampler = Sampler(SamplingParams(temperature=0, processors=fail))
    engine.add(failing)
    engine.add(other)
    finish(engine, failing, other)
    assert failing.finish_reason == "cancelled" and str(failing.failure) == "mine"
    assert failing.num_tokens == 5
    assert other.finish_reason == "length" and other.failure is None
