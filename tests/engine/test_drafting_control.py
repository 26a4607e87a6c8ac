"""The controller: drafts as much as pays by what it measured, stops where nothing does, and looks again later."""

from __future__ import annotations

import numpy as np
import pytest

from torchless.engine.acceptance import Acceptance
from torchless.engine.drafters import Guess
from torchless.engine.sequence import Sequence
from torchless.engine.speculation import PROBE_SHARE, Judgement, Speculation
from torchless.engine.step_costs import StepCosts
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams


class Guesser:
    """Right with a given probability at every token. A guess of a model takes simulated time."""

    def __init__(self, share: float, *, is_free: bool = True) -> None:
        self.share = share
        self.is_free = is_free
        self.num_calls = self.num_steps = 0

    def draft(self, sequences: list[Sequence], num_tokens: int, width: int) -> list[list[Guess]]:
        self.num_calls += 1
        self.num_steps += num_tokens
        return [[Guess([1] * num_tokens, [("draft model", 0)] * num_tokens)] for _ in sequences]

    def forget(self, sequence: Sequence) -> None:
        pass

    def close(self) -> None:
        pass


def decoding(max_tokens: int = 10**6) -> Sequence:
    """A sequence with its prompt behind it, about to decode a token."""
    sequence = Sequence(
        np.array([5], np.int32), max_tokens=max_tokens, sampler=Sampler(SamplingParams(seed=1))
    )
    sequence.append(1)
    sequence.num_computed_tokens = 1
    sequence.state = "running"
    return sequence


def simulate(
    guesser: Guesser, slope: float, *, num_sequences: int = 1, num_tokens: int = 4000, seed: int = 0
) -> tuple[float, Speculation]:
    """Speed as a multiple of plain decoding's, where a step of n rows takes 1 + slope (n - 1) and drafts take none."""
    random = np.random.default_rng(seed)
    speculation = Speculation([guesser], clock=lambda: 0.0)
    sequences = [decoding() for _ in range(num_sequences)]
    seconds, done = 0.0, 0
    while done < num_tokens * num_sequences:
        is_observed = speculation.draft(sequences)
        num_rows = 0
        for sequence in sequences:
            tree, sequence.draft = sequence.draft, None
            num_rows += 1 + (0 if tree is None else tree.num_drafted)
            done += 1
            if tree is None:
                continue
            picked, node = [], 0
            while True:
                token = 1 if random.random() < guesser.share else 2
                picked.append((node, token))
                child = tree.child(node, token)
                if child is None:
                    break
                node = child
                done += 1
            speculation.judge(sequence, Judgement(tree, picked))
        step = 0.01 * (1 + slope * (num_rows - 1)) * random.choice([1.0, 1.0, 1.02, 1.3])
        seconds += step
        if is_observed:
            speculation.observe(num_rows, step, is_decoding=True)
    plain = 0.01 * num_tokens * (1 + slope * (num_sequences - 1)) * 1.08
    return plain / seconds, speculation


@pytest.mark.parametrize("num_sequences", [1, 4])
@pytest.mark.parametrize("slope", [0.05, 0.2, 0.6, 1.0])
def test_wrong_guesses_cost_almost_nothing(slope: float, num_sequences: int) -> None:
    speed, speculation = simulate(Guesser(0.02), slope, num_sequences=num_sequences)
    assert speed > 0.97
    if slope > 0.1:  # looking again costs so little below that it is done often
        assert speculation.num_drafted < 400 * num_sequences


@pytest.mark.parametrize("is_free", [True, False])
@pytest.mark.parametrize(("share", "slope", "least"), [(0.95, 0.03, 5.0), (0.8, 0.05, 2.5), (0.6, 0.1, 1.5)])
def test_right_guesses_are_used(share: float, slope: float, least: float, is_free: bool) -> None:
    speed, _ = simulate(Guesser(share, is_free=is_free), slope)
    assert speed > least


def test_rows_that_cost_as_much_as_steps_are_not_worth_any_guess() -> None:
    speed, speculation = simulate(Guesser(0.9), 1.0)
    assert speed > 0.97 and speculation.num_drafted < 400


def test_drafting_begins_again_when_the_text_changes() -> None:
    guesser = Guesser(0.0)
    _, speculation = simulate(guesser, 0.1)
    before = speculation.num_drafted
    assert speculation._lost_seconds <= 2 * PROBE_SHARE * speculation._decode_seconds
    guesser.share = 0.9
    sequence = decoding()
    for _ in range(1500):
        speculation.draft([sequence])
        tree, sequence.draft = sequence.draft, None
        num_rows = 1 + (0 if tree is None else tree.num_drafted)
        if tree is not None:
            speculation.judge(sequence, Judgement(tree, [(node, 1) for node in range(num_rows)]))
        speculation.observe(num_rows, 0.01 * (1 + 0.1 * (num_rows - 1)), is_decoding=True)
    assert speculation.num_drafted - before > 3000


def test_a_fixed_number_is_drafted_whatever_it_costs() -> None:
    guesser = Guesser(0.0)
    speculation = Speculation([guesser], 3, is_adaptive=False)
    sequence = decoding(100)
    for _ in range(20):
        speculation.draft([sequence])
        assert sequence.draft is not None and sequence.draft.num_drafted == 3
        speculation.observe(4, 100.0, is_decoding=True)


def test_nothing_is_drafted_behind_the_last_token() -> None:
    speculation = Speculation([Guesser(1.0)], 8, is_adaptive=False)
    sequence = decoding(5)
    found = []
    for _ in range(3):
        speculation.draft([sequence])
        found.append(0 if sequence.draft is None else sequence.draft.num_drafted)
        sequence.draft = None
        sequence.num_computed_tokens = sequence.num_tokens
        sequence.append(1)
    assert found == [2, 1, 0]


def test_costs_between_and_beyond_what_was_measured() -> None:
    costs = StepCosts()
    assert costs.seconds(4) == 0.0
    for seconds in (9.0, 1.0, 1.1):  # the first one was held up
        assert not costs.knows(1)
        costs.add(1, seconds)
    assert costs.seconds(1) == 1.0 and 1.0 < costs.seconds(9) < 2.0
    for _ in range(3):
        assert costs.seconds(5) < 1.5, "a few measurements are believed"
        costs.add(5, 2.0)
    assert costs.seconds(3) == pytest.approx(1.5) and costs.seconds(9) == pytest.approx(3.0)
    for _ in range(100):
        costs.add(5, 50.0 if _ % 20 == 0 else 1.5)
    assert costs.seconds(5) < 1.8, "steps that were held up count too much"
    for _ in range(5):
        costs.add(1000, 9.0)
    assert not costs.knows(1000)
    for _ in range(10_000):
        costs.add(1, 1.0)
    assert not costs.knows(5), "what was measured long ago is believed"


def test_rates_start_from_what_is_known_of_others() -> None:
    common = Acceptance()
    first = Acceptance(common)
    for _ in range(50):
        first.add("a", is_right=False)
    assert first.rate("a") < 0.1 and Acceptance(common).rate("a") < 0.1
    assert Acceptance(common).rate("b") == pytest.approx(0.6)
    second = Acceptance(common)
    for _ in range(30):
        second.add("a", is_right=True)
    assert second.rate("a") > 0.8
