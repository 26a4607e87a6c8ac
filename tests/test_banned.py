"""Banned strings: never in an answer, never shown, and the same answer in whatever way it is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_llm import BOS, EOS, PIECES, VOCAB, ids_of, is_clean, make

import torchless
from torchless.engine.drafters import Guess
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.engine.speculation import Speculation
from torchless.errors import InvalidRequestError
from torchless.generation import Generation
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams


def plainly(model: Any, prompt: list[int], params: SamplingParams) -> list[int]:
    """The answer by definition: one token after another, each time looking at the whole text."""
    sampler = Sampler(params, [EOS], num_prompt_tokens=len(prompt))
    ids: list[int] = []
    forbidden: dict[int, set[int]] = {}
    for _ in range(5000):
        if len(ids) == params.max_tokens:
            return ids
        history = np.array(prompt + ids, np.int32)
        logits = expected_logits(history, VOCAB)
        logits[list(forbidden.get(len(ids), ()))] = -np.inf
        ids.append(sampler.pick(logits, history))
        if ids[-1] == EOS:
            return ids[:-1]
        letters = ["" if i >= len(PIECES) or i < 5 else PIECES[i].replace("\u2581", " ") for i in ids]
        text = "".join(letters)
        found = [string for string in params.banned if text.endswith(string)]
        if found:
            place = len(text) - len(max(found, key=len))
            begin = next(i for i in range(len(ids)) if len("".join(letters[: i + 1])) > place)
            forbidden = {where: tokens for where, tokens in forbidden.items() if where <= begin}
            forbidden.setdefault(begin, set()).add(ids[begin])
            del ids[begin:]
    raise AssertionError("no end")


# Letters come from few ids, so that strings of two are met often.
BIAS = dict.fromkeys(ids_of("abc "), 6.0) | {3: -float("inf"), 4: -float("inf")}
banned_strings = st.lists(st.text("abc ", min_size=1, max_size=3), max_size=4)


@settings(deadline=None, max_examples=60)
@given(banned_strings, st.integers(0, 1000), st.integers(1, 20), st.sampled_from([0.0, 1.0]))
def test_the_answer_is_that_of_the_definition(banned, seed, max_batch_tokens, temperature):
    if {"a", "b", "c", " "} <= set(banned):
        banned = banned[:3]
    params = SamplingParams(
        banned=banned, seed=seed, max_tokens=25, temperature=temperature, logit_bias=BIAS, min_p=0, top_k=0
    )
    model = make(max_batch_tokens=max_batch_tokens)
    done = model.generate("xyz", params=params, logprobs=1)
    assert list(done.token_ids) == plainly(model, [BOS, *ids_of("xyz")], params)
    assert not any(string in done.text for string in banned)
    assert [entry.token_id for entry in done.logprobs] == list(done.token_ids)
    for place, entry in enumerate(done.logprobs, 4):
        row = expected_logits([BOS, *ids_of("xyz"), *done.token_ids][:place], VOCAB).astype(float)
        expected = row[entry.token_id] - row.max() - np.log(np.exp(row - row.max()).sum())
        assert entry.logprob == pytest.approx(expected), "no bias and no ban is in it"
    chunks = list(model.stream("xyz", params=params))
    shown = ""
    for chunk in chunks:
        shown += chunk.text
        assert done.text.startswith(shown), "what was shown stays"
    assert shown == done.text
    assert tuple(i for chunk in chunks for i in chunk.token_ids) == done.token_ids
    assert model.metrics().num_generated_tokens >= 2 * len(done.token_ids)
    assert is_clean(model)


def test_going_back_happens_as_far_as_the_string_reaches():
    model = make(says="abcab", after=2)
    done = model.generate("x", temperature=0, banned=["bca"], max_tokens=5, logits_hash=True)
    assert done.text.startswith("a") and done.text[1] != "b"
    steps = len(model._loaded.executor.batches)
    assert steps > 5, "tokens were taken back"
    assert len(done.token_ids) == 5 and done.usage.num_completion_tokens == 5


def test_a_stop_string_that_is_complete_first_wins():
    model = make(says="abcd", after=2)
    assert model.generate("x", temperature=0, stop=["bc"], banned=["bcd"], max_tokens=9).text == "a"
    done = model.generate("x", temperature=0, stop=["bcd"], banned=["bc"], max_tokens=3)
    assert done.text.startswith("a") and "bc" not in done.text
    assert model.generate("x", temperature=0, stop=["cd"], banned=["bcd"], max_tokens=9).text == "ab"


def test_text_at_the_end_that_only_begins_a_banned_string_is_shown():
    done = make(says="ab", after=2).generate("x", temperature=0, banned=["abc"], max_tokens=2)
    assert done.text == "ab" and done.finish_reason == "length"


class Knowing:
    """A drafter that guesses the answer without bans, so that drafts often run into what is banned."""

    is_free = True

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def draft(self, sequences: list[Sequence], num_tokens: int, width: int) -> list[list[Guess]]:
        found = []
        for sequence in sequences:
            done = sequence.num_tokens
            guess = self.tokens[done : done + num_tokens]
            found.append([Guess(guess, ["known"] * len(guess))] if guess else [])
        return found

    def forget(self, sequence: Sequence) -> None: ...

    def close(self) -> None: ...


XYZ = [BOS, *ids_of("xyz")]


def generation(model: Any, params: SamplingParams, prompt: list[int] = XYZ) -> Generation:
    settings = {"context_length": 200, "continuation": True, "logits_hash": True, "called_at": 0.0}
    return Generation(np.array(prompt, np.int32), params, model.tokenizer, **settings)


@pytest.mark.parametrize("num_state_slots", [0, 3])
def test_drafts_preemption_and_states_change_nothing(num_state_slots):
    model = make()
    num_rewound = 0
    for seed in range(12):
        params = SamplingParams(
            banned=["ab", "ca", "b b"], seed=seed, max_tokens=60, logit_bias=BIAS, mirostat=2 * (seed % 2)
        )
        alone = generation(model, params)
        engine = Engine(FakeExecutor(vocab_size=VOCAB, num_state_slots=num_state_slots))
        engine.add(alone.sequence)
        while alone.sequence.finish_reason is None:
            before = alone.sequence.num_tokens
            engine.step()
            num_rewound += alone.sequence.num_tokens < before
        expected = alone.completion()
        unbanned = model.generate("xyz", params=params, banned=[]).token_ids
        speculation = Speculation([Knowing([BOS, *ids_of("xyz"), *unbanned])], 5, is_adaptive=False)
        busy = Engine(
            FakeExecutor(vocab_size=VOCAB, num_pages=4, max_batch_tokens=24, num_state_slots=num_state_slots),
            None if num_state_slots else speculation,
        )
        others = [
            Sequence(np.arange(20 + i, dtype=np.int32), max_tokens=90, sampler=Sampler(params))
            for i in range(2)
        ]
        again = generation(model, params)
        for sequence in (others[0], again.sequence, others[1]):
            busy.add(sequence)
        while not all(s.finish_reason for s in (*others, again.sequence)):
            busy.step()
        found = again.completion()
        assert (found.text, found.token_ids) == (expected.text, expected.token_ids)
        assert found.logits_hash == expected.logits_hash
    assert num_rewound > 10


def test_pages_that_others_share_are_left_as_they_are():
    """What a sequence computed stays for others, also where it goes back over the end of a page afterwards."""
    model, num_left = make(), 0
    engine = Engine(FakeExecutor(vocab_size=VOCAB, max_batch_tokens=64), has_prefix_cache=True)

    def answers(*subjects: Generation) -> list[list[int]]:
        for subject in subjects:
            engine.add(subject.sequence)
        while not all(subject.sequence.finish_reason for subject in subjects):
            engine.step()
        return [list(subject.completion().token_ids) for subject in subjects]

    for seed in range(12):
        params = SamplingParams(banned=["ab", "cc", "aaa", " b"], seed=seed, max_tokens=100, logit_bias=BIAS)
        expected = plainly(model, XYZ, params)
        subjects = [generation(model, params) for _ in range(2)]
        assert answers(*subjects) == [expected, expected]
        num_left += sum(place % 32 in (0, 1) and place > 4 for place in subjects[0].sequence.forbidden)
        further, free = [*XYZ, *expected[:80]], SamplingParams(seed=seed, max_tokens=5)
        behind = generation(model, free, prompt=further)
        assert answers(behind) == [plainly(model, further, free)]
        assert behind.completion().usage.num_cached_tokens == (len(further) - 1) // 32 * 32
    assert num_left > 0, "none went back over the end of a page"


def test_constraints_go_back_with_the_text():
    pytest.importorskip("llguidance")
    pytest.importorskip("torchless._core")
    with torchless.load(ctx=256, threads=1) as model:
        for seed in range(6):
            found = model.generate(
                "Once",
                seed=seed,
                temperature=1.2,
                choices=["a cat", "a dog", "the fox"],
                banned=["cat", "the"],
            )
            assert found.text == "a dog" and found.finish_reason == "stop"
            done = model.generate(
                "As JSON: ", seed=seed, temperature=1, regex='\\{"a": [0-9]{3,5}\\}', banned=["1", "23", "7"]
            )
            assert not any(string in done.text for string in ("1", "23", "7")) and done.text.endswith("}")
        with pytest.raises(InvalidRequestError, match="completes a banned text"):
            model.generate("Once", choices=["cat"], banned=["cat"])
        assert model.generate("Once", max_tokens=2).text, "the others go on"


# -- on the CPU backend ---------------------------------------------------------------------------

PROMPT = "Once upon a time there was a fox. The fox saw a kite. The fox"


def test_answers_are_the_same_with_drafts_threads_and_neighbours():
    pytest.importorskip("torchless._core")
    asked = [
        {"seed": seed, "temperature": temperature, "max_tokens": 60, "logprobs": 1, "logits_hash": True}
        for seed, temperature in ((1, 0.0), (2, 0.9), (3, 1.3))
    ]
    with torchless.load(ctx=512, threads=1, speculative="off") as model:
        free = [model.generate(PROMPT, **options) for options in asked]
        words = [done.text.split()[3] for done in free]
        banned = [*words, " the", "y."]
        expected = [model.generate(PROMPT, banned=banned, **options) for options in asked]
    for one, other in zip(expected, free, strict=True):
        assert one.text != other.text and not any(string in one.text for string in banned)
        assert "".join(entry.text for entry in one.logprobs) == one.text
    for options in (
        {"threads": 2, "batch_tokens": 16},
        {"draft_model": "built-in", "speculative": "both", "num_draft_tokens": 5},
    ):
        with torchless.load(ctx=512, **options) as model:
            futures = [model.submit(PROMPT, banned=banned, **one) for one in asked]
            for future, wanted in zip(futures, expected, strict=True):
                done = future.result()
                assert (done.token_ids, done.text) == (wanted.token_ids, wanted.text)
                assert (done.logprobs, done.logits_hash) == (wanted.logprobs, wanted.logits_hash)
