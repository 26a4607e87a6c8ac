"""Sequences that begin alike share pages, and nobody can tell from what they give."""

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits
from fake_sequences import VOCAB, alone, computed, finish, make, new_tokens, prompt_of, scoring
from hypothesis import given, settings
from hypothesis import strategies as st

from torchless.backends.base import PAGE_TOKENS
from torchless.engine.engine import Engine
from torchless.engine.fast_tokens import FEWEST_FAST_TOKENS, num_fast_tokens
from torchless.sampling.parameters import SamplingParams

PARAMS = SamplingParams(seed=3)


def num_computed(executor):
    """Token rows of all steps so far."""
    return sum(len(batch.token_ids) for batch in executor.batches)


def check(engine, everyone):
    """Every page is owned, kept or empty, owners are counted, and each holds what its owners think it holds."""
    pages, scheduler, executor = engine.pages, engine.scheduler, engine.executor
    cache = scheduler.prefix_cache
    tables = [s.page_ids[: s.num_pages].tolist() for s in scheduler.running]
    assert not any(s.num_pages for s in scheduler.waiting)
    assert not any(s.num_pages for s in everyone if s.state == "finished")
    assert all(len(set(table)) == len(table) for table in tables)
    owners = [sum(page in table for table in tables) for page in range(pages.num_pages)]
    assert owners == [pages.num_owners(page) for page in range(pages.num_pages)]
    published, empty = set(cache.kept_ids), set(pages.empty_ids)
    owned = {page for page, number in enumerate(owners) if number}
    kept = published - owned
    assert len(kept) == pages.num_kept and not empty & (owned | published)
    assert len(owned) + len(kept) + len(empty) == pages.num_pages
    assert pages.num_free == pages.num_pages - len(owned)
    for sequence, table in zip(scheduler.running, tables, strict=True):
        count = sequence.num_computed_tokens
        num_fast = num_fast_tokens(sequence) if scheduler.is_fast else 0
        tokens = sequence.tokens[:count] + np.where(np.arange(count) < num_fast, VOCAB, 0)
        assert executor._tokens[table].reshape(-1)[:count].tolist() == tokens.tolist()
        assert sequence.num_published_pages == count // PAGE_TOKENS
        assert set(table[: count // PAGE_TOKENS]) <= published
        assert all(page not in published for page in table[count // PAGE_TOKENS :])
    # A page could not be found without those before it.
    known = [s.page_keys for s in everyone]
    parents = {keys[j]: keys[j - 1] for keys in known for j in range(1, len(keys))}
    assert all(parents.get(key, key) in cache._page_of for key in cache._page_of)


# What a prompt is made of: which text it begins with, tokens of that, and tokens of its own.
prompts = st.tuples(st.integers(0, 1), st.integers(0, 130), st.integers(1, 40))
acts = st.one_of(
    st.tuples(st.just("add"), prompts, st.integers(0, 45)),
    st.tuples(st.just("step"), st.integers(1, 6), st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 100), st.just(0)),
    st.tuples(st.just("break"), st.just(0), st.just(0)),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(acts, max_size=30),
    st.integers(1, 70),
    st.integers(1, 6),
    st.integers(7, 20),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0, 1, 3]),
)
def test_any_history_gives_every_sequence_its_solo_tokens(
    history, max_batch_tokens, max_outputs, num_pages, fast, ends_alike, num_state_slots
):
    """Sequences arrive, are cancelled and preempted, and steps break off, while they share what they begin with.

    With state slots (0: none) they go on only where a state was kept, which must be theirs.
    """
    executor = FakeExecutor(
        max_batch_tokens=max_batch_tokens,
        max_outputs=max_outputs,
        num_pages=num_pages,
        fast=fast,
        num_state_slots=num_state_slots,
        num_kept_states=3 if num_state_slots else 0,
    )
    engine, everyone, parameters = Engine(executor), [], {}
    for act, argument, number in history:
        if act == "add":
            text, shared, own = argument
            prompt = prompt_of(130, text)[:shared] + prompt_of(own, 0 if ends_alike else len(everyone))
            params = SamplingParams(seed=0 if ends_alike else len(everyone))
            sequence = make(prompt, number, params) if number else scoring(prompt)
            everyone.append(sequence)
            parameters[sequence] = params
            engine.add(sequence)
        elif act == "cancel" and everyone:
            engine.cancel(everyone[argument % len(everyone)])
        elif act == "break" and not engine.scheduler.is_idle:
            executor.fail_at = {len(executor.batches) + 1: RuntimeError("device lost")}
            with pytest.raises(RuntimeError, match="device lost"):
                engine.step()
            engine.recover()
        elif act == "step":
            for _ in range(argument):
                is_idle = engine.scheduler.is_idle
                assert bool(engine.step().runs) != is_idle, "a step without work while a sequence waits"
                check(engine, everyone)
        check(engine, everyone)
    num_steps = 0
    while not engine.scheduler.is_idle:
        assert engine.step().runs
        num_steps += 1
        assert num_steps < 20_000
    check(engine, everyone)
    assert engine.pages.num_free == num_pages
    for sequence in everyone:
        prompt = sequence.history[: sequence.num_prompt_tokens].tolist()
        if sequence.logits is not None:
            if sequence.finish_reason == "length":
                kept = computed(prompt, fast)
                rows = [expected_logits(kept[: j + 1], VOCAB) for j in range(len(prompt))]
                np.testing.assert_array_equal(sequence.logits, rows)
        else:
            found = new_tokens(sequence)
            assert found == alone(prompt, len(found), parameters[sequence], fast)
            assert sequence.finish_reason == "cancelled" or len(found) == sequence.max_tokens - len(prompt)


def test_a_second_sequence_computes_only_what_the_first_did_not():
    executor = FakeExecutor()
    engine = Engine(executor)
    first, second = make(prompt_of(100), 5), make([*prompt_of(100)[:70], 1, 2, 3], 5)
    engine.add(first)
    finish(engine, first)
    assert first.num_cached_tokens == 0 and num_computed(executor) == 104
    engine.add(second)
    finish(engine, second)
    assert second.num_cached_tokens == 64 and num_computed(executor) == 104 + 9 + 4
    assert new_tokens(second) == alone([*prompt_of(100)[:70], 1, 2, 3], 5, PARAMS)


@pytest.mark.parametrize("length", [64, 65])
def test_one_token_is_always_left_to_compute(length):
    engine = Engine(FakeExecutor())
    for expected in (0, (length - 1) // PAGE_TOKENS * PAGE_TOKENS):
        sequence = make(prompt_of(length), 3)
        engine.add(sequence)
        finish(engine, sequence)
        assert sequence.num_cached_tokens == expected
        assert new_tokens(sequence) == alone(prompt_of(length), 3, PARAMS)


def test_sequences_that_arrive_together_compute_what_they_share_once():
    executor = FakeExecutor(num_pages=64, max_batch_tokens=40)
    engine = Engine(executor)
    everyone = [make(prompt_of(200), 10, SamplingParams(seed=i)) for i in range(6)]
    for sequence in everyone:
        engine.add(sequence)
    finish(engine, *everyone)
    assert num_computed(executor) == 200 + 5 * 8 + 6 * 9
    assert [s.num_cached_tokens for s in everyone] == [0] + [192] * 5
    for i, sequence in enumerate(everyone):
        assert new_tokens(sequence) == alone(prompt_of(200), 10, SamplingParams(seed=i))


def test_pages_that_are_shared_are_promised_once():
    """Six contexts would need 42 pages. They share six, so that all run at once in twelve."""
    engine = Engine(FakeExecutor(num_pages=12, max_batch_tokens=64))
    everyone = [make(prompt_of(200), 4, SamplingParams(seed=i)) for i in range(6)]
    for sequence in everyone:
        engine.add(sequence)
    most = 0
    while not engine.scheduler.is_idle:
        engine.step()
        most = max(most, len(engine.scheduler.running))
    assert most == 6 and engine.scheduler.num_preemptions == 0


@pytest.mark.parametrize("how", ["the step fails", "its reader fails"])
def test_who_waits_for_a_prefix_goes_on_alone_when_the_other_is_gone(how):
    """In the second step the first sequence computes its third page, for which the second one waits."""
    executor = FakeExecutor(max_batch_tokens=64)
    engine = Engine(executor)

    def accept(token):
        raise KeyboardInterrupt

    first = make(prompt_of(100), 10, accept=accept if how == "its reader fails" else None)
    second = make(prompt_of(100), 10)
    engine.add(first)
    engine.add(second)
    engine.step()
    if how == "the step fails":
        executor.fail_at = {2: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    assert second.num_computed_tokens == 64 and len(executor.batches[1].run_starts) == 2
    engine.recover()
    engine.cancel(first)
    finish(engine, second)
    assert second.num_cached_tokens == 64
    assert new_tokens(second) == alone(prompt_of(100), 10, PARAMS)
    check(engine, [first, second])


def test_a_sequence_with_another_prefix_does_not_wait():
    engine = Engine(FakeExecutor(max_batch_tokens=64))
    first, second = make(prompt_of(33), 10), make(prompt_of(33, 1), 10)
    engine.add(first)
    engine.add(second)
    assert [run.num_tokens for run in engine.step().runs] == [33, 31]


def test_a_preempted_sequence_finds_its_pages_again():
    executor = FakeExecutor(num_pages=6, max_batch_tokens=64)
    engine = Engine(executor)
    old, young = make(prompt_of(30), 70), make(prompt_of(64, 1), 60)
    engine.add(old)
    engine.add(young)
    finish(engine, old, young)
    assert young.num_preemptions > 0 and young.num_cached_tokens == 0
    assert engine.scheduler.prefix_cache.num_cached_tokens > 0
    assert num_computed(executor) < 30 + 64 + 70 + 60 + 64  # what would have been computed again
    assert new_tokens(young) == alone(prompt_of(64, 1), 60, PARAMS)


def test_later_pages_are_given_up_before_those_that_they_rest_on():
    executor = FakeExecutor(num_pages=8, max_batch_tokens=300)
    engine = Engine(executor)
    old = make(prompt_of(160), 1)  # five pages
    engine.add(old)
    finish(engine, old)
    engine.add(other := make(prompt_of(150, 1), 1))  # five more, so two of the five go
    finish(engine, other)
    again = make(prompt_of(160), 1)
    engine.add(again)
    finish(engine, again)
    assert again.num_cached_tokens == 3 * PAGE_TOKENS


def test_what_was_used_last_is_kept_the_longest():
    engine = Engine(FakeExecutor(num_pages=6, max_batch_tokens=300))
    first, second = prompt_of(65, 1), prompt_of(65, 2)
    for prompt in (first, second, first, prompt_of(97, 3)):  # two pages, two pages; the last needs four
        engine.add(sequence := make(prompt, 1))
        finish(engine, sequence)
    found = []
    for prompt in (first, second):
        engine.add(sequence := make(prompt, 1))
        finish(engine, sequence)
        found.append(sequence.num_cached_tokens)
    assert found == [64, 0]


def test_a_sequence_that_wants_all_logits_computes_all_and_leaves_its_pages_to_others():
    executor = FakeExecutor()
    engine = Engine(executor)
    for _ in range(2):
        engine.add(sequence := scoring(prompt_of(70)))
        finish(engine, sequence)
        np.testing.assert_array_equal(sequence.logits[69], expected_logits(prompt_of(70), VOCAB))
    assert num_computed(executor) == 140
    engine.add(sequence := make(prompt_of(70), 2))
    finish(engine, sequence)
    assert sequence.num_cached_tokens == 64


def test_pages_that_two_computed_at_once_are_kept_once():
    executor = FakeExecutor(max_batch_tokens=32, max_outputs=32)
    engine = Engine(executor)
    pair = [scoring(prompt_of(90)) for _ in range(2)]
    for sequence in pair:
        engine.add(sequence)
    finish(engine, *pair)
    assert engine.pages.num_kept == 2
    assert not set(executor.released) & set(engine.scheduler.prefix_cache.kept_ids)
    for sequence in pair:
        np.testing.assert_array_equal(sequence.logits[89], expected_logits(prompt_of(90), VOCAB))


def test_tokens_in_fast_arithmetic_are_others():
    """What was generated is exact; in a longer prompt it would be fast."""
    engine = Engine(FakeExecutor(fast=True, max_batch_tokens=300))
    prompt = prompt_of(100)
    engine.add(first := make(prompt, 100))
    finish(engine, first)
    longer = [*prompt, *new_tokens(first), 1, 2]
    engine.add(second := make(longer, 5))
    finish(engine, second)
    assert second.num_cached_tokens == 96
    assert new_tokens(second) == alone(longer, 5, PARAMS, fast=True)
    short = prompt[: FEWEST_FAST_TOKENS - 1]  # exact, though a longer prompt that began so was fast
    engine.add(third := make(short, 5))
    finish(engine, third)
    assert third.num_cached_tokens == 0
    assert new_tokens(third) == alone(short, 5, PARAMS, fast=True)


def test_a_sequence_with_a_state_goes_on_where_one_was_kept():
    executor = FakeExecutor(num_state_slots=2, num_kept_states=5, max_batch_tokens=64)
    engine = Engine(executor)
    engine.add(first := make(prompt_of(150), 50))
    finish(engine, first)
    assert [len(batch.token_ids) for batch in executor.batches[:3]] == [
        64,
        64,
        22,
    ]  # the ends of pages are kept
    for prompt, expected in (
        (prompt_of(150), 128),
        (prompt_of(150)[:100], 64),
        ([*prompt_of(150), *new_tokens(first), 1], 192),  # the last end of a page in its answer
        (prompt_of(150)[:60], 0),
    ):
        engine.add(sequence := make(prompt, 5))
        finish(engine, sequence)
        assert sequence.num_cached_tokens == expected
        assert new_tokens(sequence) == alone(prompt, 5, PARAMS)


def test_no_more_states_are_kept_than_there_is_room_for():
    executor = FakeExecutor(num_state_slots=2, num_kept_states=2, max_batch_tokens=64)
    engine = Engine(executor)
    for seed in range(3):
        engine.add(sequence := make(prompt_of(70, seed), 2))
        finish(engine, sequence)
    assert len(engine.prefix_cache._states) == 2
    found = []
    for seed in (2, 1, 0):
        engine.add(sequence := make(prompt_of(70, seed), 2))
        finish(engine, sequence)
        found.append(sequence.num_cached_tokens)
    assert found == [64, 64, 0]


def test_an_answer_is_found_by_the_prompt_that_it_is_a_part_of():
    engine = Engine(FakeExecutor())
    engine.add(first := make(prompt_of(20), 60))
    finish(engine, first)
    longer = [*prompt_of(20), *new_tokens(first), 1]
    engine.add(second := make(longer, 5))
    finish(engine, second)
    assert second.num_cached_tokens == 64


@pytest.mark.parametrize("reason", ["off", "states", "whole sequences"])
def test_without_it_nothing_is_kept(reason):
    executor = FakeExecutor(num_state_slots=2 * (reason == "states"))
    executor.needs_whole_sequences = reason == "whole sequences"
    engine = Engine(executor, has_prefix_cache=reason != "off")
    for _ in range(2):
        engine.add(sequence := make(prompt_of(31), 1))
        finish(engine, sequence)
        assert sequence.num_cached_tokens == 0
    assert engine.scheduler.prefix_cache is None and engine.pages.num_kept == 0
    assert num_computed(executor) == 62
