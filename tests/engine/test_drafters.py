"""Drafters: what they find, what they keep for a sequence, and that they can be found by name."""

from __future__ import annotations

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits

from torchless.engine.drafters import DrafterContext, build_drafter, drafter_names
from torchless.engine.drafters.draft_model import DraftModel
from torchless.engine.drafters.prompt_lookup import PromptLookup
from torchless.engine.sequence import Sequence
from torchless.errors import InvalidRequestError
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

VOCAB = 50


def make(ids: list[int]) -> Sequence:
    return Sequence(
        np.array(ids, np.int32), max_tokens=1000, sampler=Sampler(SamplingParams(temperature=0.0))
    )


def look_up(
    drafter: PromptLookup, sequence: Sequence, num_tokens: int = 4, width: int = 3
) -> list[list[int]]:
    return [guess.token_ids for guess in drafter.draft([sequence], num_tokens, width)[0]]


def greedy(tokens: list[int], count: int) -> list[int]:
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(expected_logits(tokens, VOCAB).argmax()))
    return tokens[-count:]


def test_drafters_are_found_by_their_files() -> None:
    assert {"prompt-lookup", "draft-model"} <= set(drafter_names())
    assert isinstance(build_drafter("prompt-lookup", DrafterContext()), PromptLookup)
    with pytest.raises(InvalidRequestError, match="draft_model"):
        build_drafter("draft-model", DrafterContext())


def test_looking_back_finds_what_followed_the_last_tokens() -> None:
    drafter = PromptLookup()
    assert look_up(drafter, make([1, 2, 3, 4, 5, 6, 1, 2, 3])) == [[4, 5, 6, 1]]
    assert look_up(drafter, make([1, 2, 3, 4])) == []
    assert look_up(drafter, make([7])) == []


def test_a_text_that_ends_in_a_loop_goes_on_in_it() -> None:
    assert look_up(PromptLookup(), make([9, 1, 2, 1, 2, 1, 2])) == [[1, 2, 1, 2]]


def test_different_continuations_are_all_found_the_latest_first() -> None:
    ids = [1, 2, 10, 0, 1, 2, 11, 0, 1, 2, 10, 5, 1, 2]
    assert look_up(PromptLookup(), make(ids), num_tokens=2) == [[10, 5], [11, 0]]
    assert look_up(PromptLookup(), make(ids), num_tokens=2, width=1) == [[10, 5]]


def test_a_longer_match_comes_first() -> None:
    ids = [8, 1, 2, 3, 50, 0, 2, 3, 60, 0, 1, 2, 3]
    assert [guess[0] for guess in look_up(PromptLookup(), make(ids))] == [50, 60]


def test_looking_back_follows_a_sequence_that_grows_and_is_cut_back() -> None:
    drafter, sequence = PromptLookup(), make([1, 2, 3, 4, 0])
    assert look_up(drafter, sequence) == []
    for token in (1, 2):
        sequence.append(token)
    assert look_up(drafter, sequence)[0][:2] == [3, 4]
    sequence.num_tokens -= 2
    for token in (2, 3):
        sequence.append(token)
    assert look_up(drafter, sequence)[0][:2] == [4, 0]


def test_random_texts_agree_with_a_plain_search() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        ids = random.integers(0, 4, random.integers(2, 40)).tolist()
        found = look_up(PromptLookup(), make(ids), num_tokens=3, width=1)
        for length in (5, 3, 2):
            places = [i for i in range(length, len(ids)) if ids[i - length : i] == ids[-length:]]
            if len(ids) >= length and places:
                assert found and found[0][0] == ids[places[-1]]
                break
        else:
            assert found == []


class Steps:
    """A draft model over the fake executor, which checks each batch and that every context is whole."""

    def __init__(self, **options: int) -> None:
        self.executor = FakeExecutor(vocab_size=VOCAB, **options)
        self.drafter = DraftModel(self.executor, 500)

    def chains(self, sequences: list[Sequence], num_tokens: int) -> list[list[int]]:
        return [guesses[0].token_ids for guesses in self.drafter.draft(sequences, num_tokens, 3)]


def test_a_draft_model_guesses_its_own_greedy_continuation() -> None:
    steps = Steps()
    first, second = make([3, 4, 5]), make(list(range(40)))
    assert steps.chains([first, second], 4) == [greedy([3, 4, 5], 4), greedy(list(range(40)), 4)]


def test_a_draft_model_keeps_what_was_kept_and_takes_back_the_rest() -> None:
    steps, ids = Steps(), list(range(20))
    sequence = make(ids)
    for accepted in (4, 0, 2, 1, 3):
        chain = steps.chains([sequence], 4)[0]
        assert chain == greedy(sequence.history.tolist(), 4)
        before = len(steps.executor.batches)
        for token in [*chain[:accepted], 7]:
            sequence.append(token)
        steps.chains([sequence], 1)
        num_rows = len(steps.executor.batches[before].token_ids)
        assert num_rows == (2 if accepted == 4 else 1), "tokens that were kept are computed again"
    sequence.num_tokens -= 9  # a banned string takes tokens back
    sequence.append(1)
    assert steps.chains([sequence], 4)[0] == greedy(sequence.history.tolist(), 4)


def test_long_prompts_come_in_chunks_and_many_sequences_together() -> None:
    steps = Steps(max_batch_tokens=16, max_outputs=4, num_pages=64)
    sequences = [make(np.random.default_rng(i).integers(0, VOCAB, 100 + i).tolist()) for i in range(6)]
    chains = steps.drafter.draft(sequences, 3, 2)
    assert [bool(found) for found in chains] == [True] * 4 + [False] * 2, (
        "more than the executor has outputs for"
    )
    for sequence, found in zip(sequences[:4], chains, strict=False):
        assert found[0].token_ids == greedy(sequence.history.tolist(), 3)


def test_pages_of_the_draft_model_are_taken_from_whoever_was_asked_longest_ago() -> None:
    steps = Steps(num_pages=3)
    first, second = make(list(range(40))), make(list(range(5, 45)))
    assert steps.chains([first], 2) == [greedy(list(range(40)), 2)]
    assert steps.chains([second], 2) == [greedy(list(range(5, 45)), 2)]
    assert list(steps.drafter._tracks) == [second]
    long = make([1] * 200)
    assert steps.drafter.draft([long], 2, 2) == [[]], "it does not fit at all"
    steps.drafter.forget(second)
    assert steps.drafter.pages.num_free == 3


def test_alternatives_share_the_beginning_of_the_best_guess() -> None:
    steps, sequence = Steps(), make([3, 4, 5])
    best, *others = steps.drafter.draft([sequence], 12, 3)[0]
    assert others
    for guess in others:
        depth = len(guess.token_ids) - 1
        assert guess.token_ids[:depth] == best.token_ids[:depth]
        logits = expected_logits([3, 4, 5, *guess.token_ids[:depth]], VOCAB)
        order = (-logits).argsort(kind="stable")
        assert logits[order[0]] - logits[order[1]] < 1.0, "another token is guessed where there is no doubt"
        assert guess.token_ids[depth] in order[1:3]
        assert len(guess.sources) == len(guess.token_ids)


def test_a_sequence_beyond_the_context_of_the_draft_model_is_left_alone() -> None:
    drafter = DraftModel(FakeExecutor(vocab_size=VOCAB), 42)
    assert drafter.draft([make(list(range(40)))], 2, 1)[0] != []
    assert drafter.draft([make(list(range(41)))], 2, 1) == [[]]
