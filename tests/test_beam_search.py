"""Beam search: what transformers finds, and what exhaustive search finds; whatever else the engine has to do."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits
from test_llm import BOS, EOS, VOCAB, ids_of, is_clean, make

import torchless
from torchless.engine.beams import BeamGroup
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.errors import ContextLengthError, InvalidRequestError
from torchless.sampling.beams import BeamSearch
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams


def log_softmax(tokens: list[int]) -> np.ndarray:
    row = expected_logits(tokens, VOCAB).astype(np.float64)
    row -= row.max()
    return row - np.log(np.exp(row).sum())


def plainly(prompt: list[int], num_beams: int, max_tokens: int, **settings: Any) -> list[tuple[int, ...]]:
    """The answers without an engine: every beam's logits from the definition."""
    search = BeamSearch(num_beams, max_tokens, [EOS], **settings)
    chosen: Any = True
    while chosen is not None:
        rows = [
            search.continuations(expected_logits([*prompt, *beam.token_ids], VOCAB))
            for beam in search.running
        ]
        chosen = search.advance(rows)
    return [one.token_ids for one in search.finished]


def run(engine: Engine, group: BeamGroup, *others: Sequence) -> list[tuple[int, ...]]:
    for sequence in (*group.sequences, *others):
        engine.add(sequence)
    for _ in range(5000):
        if all(s.finish_reason for s in (*group.sequences, *others)):
            return [one.token_ids for one in group.search.finished]
        assert engine.step().runs, "a step without work"
    raise AssertionError("no end")


def test_a_search_over_all_beginnings_finds_the_likeliest_answer():
    prompt = [BOS, 7]
    search = plainly(prompt, 2500, 3, length_penalty=0.0)
    answers = itertools.product(range(VOCAB), repeat=3)
    rows = {(): log_softmax(prompt)}
    best, best_logprob = (), -np.inf
    for answer in answers:
        total = 0.0
        for i, token_id in enumerate(answer):
            begin = answer[:i]
            if begin not in rows:
                rows[begin] = log_softmax([*prompt, *begin])
            total += rows[begin][token_id]
            if token_id == EOS:
                answer = answer[: i + 1]
                break
        if total > best_logprob:
            best, best_logprob = answer, total
    assert search[0] == best


@pytest.mark.parametrize("num_pages", [14, 64])
@pytest.mark.parametrize(("num_state_slots", "has_prefix_cache"), [(0, True), (0, False), (5, False)])
@pytest.mark.parametrize("length", [2, 31, 32, 70])
def test_the_engine_finds_what_the_definition_finds(length, num_state_slots, has_prefix_cache, num_pages):
    """With few pages beams are preempted by older sequences, and copies find no page."""
    prompt = np.random.default_rng(length).integers(3, VOCAB, length).tolist()
    executor = FakeExecutor(
        vocab_size=VOCAB, num_pages=num_pages, max_batch_tokens=24, num_state_slots=num_state_slots
    )
    engine = Engine(executor, has_prefix_cache=has_prefix_cache)
    search = BeamSearch(3, 34, [EOS])
    group = BeamGroup(np.array(prompt, np.int32), search)
    other = Sequence(
        np.arange(40, dtype=np.int32), max_tokens=40 + 90, sampler=Sampler(SamplingParams(seed=1))
    )
    before = Engine(FakeExecutor(vocab_size=VOCAB))
    solo = Sequence(
        np.arange(40, dtype=np.int32), max_tokens=40 + 90, sampler=Sampler(SamplingParams(seed=1))
    )
    before.add(solo)
    while not solo.finish_reason:
        before.step()
    engine.add(other)
    engine.step()
    for sequence in group.sequences:
        engine.add(sequence)
    for _ in range(5000):
        if all(s.finish_reason for s in (*group.sequences, other)):
            break
        assert engine.step().runs, "a step without work"
    assert [one.token_ids for one in search.finished] == plainly(prompt, 3, 34)
    assert other.history.tolist() == solo.history.tolist()
    assert engine.scheduler.is_idle and engine.pages.num_free == num_pages
    if num_pages == 64 and not num_state_slots:
        assert not any(sequence.num_preemptions for sequence in group.sequences)
        widths = [len(batch.token_ids) for batch in executor.batches[-20:]]
        assert max(widths) <= 4, "beams share and copy what was computed"


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
def test_settings_of_the_facade_are_those_of_the_search(early_stopping, length_penalty):
    model = make()
    settings = {"early_stopping": early_stopping, "length_penalty": length_penalty}
    done = model.beam_search("xyz", beams=4, n=3, max_tokens=12, **settings)
    prompt = [BOS, *ids_of("xyz")]
    expected = plainly(prompt, 4, 12, **settings)[:3]
    for completion, token_ids in zip(done.choices, expected, strict=True):
        has_end = token_ids[-1] == EOS
        assert completion.token_ids == (token_ids[:-1] if has_end else token_ids)
        assert completion.finish_reason == ("stop" if has_end else "length")
        total = sum(log_softmax([*prompt, *token_ids[:i]])[one] for i, one in enumerate(token_ids))
        assert completion.mean_logprob == pytest.approx(total / len(token_ids))
        assert completion.usage.num_prompt_tokens == 4
        assert completion.timings.decode_ms >= 0 and completion.params.temperature == 0
    assert is_clean(model)


def test_one_beam_takes_the_likeliest_token_each_time():
    model = make()
    greedy = model.generate("xyz", temperature=0, max_tokens=20, ignore_eos=True)
    assert model.beam_search("xyz", beams=1, max_tokens=20).token_ids[:5] == greedy.token_ids[:5]


def test_conversations_and_gaps_are_answered_too():
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model = make(template=template)
    request = torchless.Request(messages=[{"role": "user", "content": "xyz"}])
    found = model.beam_search(request, beams=3, max_tokens=6)
    assert found.token_ids == model.beam_search("xyz", beams=3, max_tokens=6).token_ids


def test_what_cannot_be_is_refused_in_words():
    model = make(num_pages=8, max_outputs=6)
    for settings, message in (
        ({"beams": 0}, "beams must be a whole number from 1 to 64"),
        ({"n": 5}, "n must be at most beams"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"length_penalty": float("nan")}, "length_penalty must be"),
        ({"early_stopping": "now"}, "early_stopping must be True, False or 'never'"),
        ({"beams": 7}, "7 beams are computed at once, and this model takes 6"),
        ({"beams": 6, "max_tokens": 60}, "do not fit into the cache of 256 tokens"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            model.beam_search("xyz", **settings)
    with pytest.raises(InvalidRequestError, match="no tokens by sampling parameters"):
        model.beam_search(torchless.Request("xyz", temperature=1))
    with pytest.raises(ContextLengthError):
        model.beam_search([3] * 300)
    assert model.beam_search("xyz", beams=4).usage.num_completion_tokens <= 60, "as many as fit"
    assert is_clean(model)


def test_a_search_that_is_left_leaves_nothing_behind():
    model = make()
    executor = model._loaded.executor
    executor.fail_at[7] = ZeroDivisionError("of the backend")
    with pytest.raises(ZeroDivisionError):
        model.beam_search("xyz", beams=3, max_tokens=30, early_stopping="never")
    assert is_clean(model)
    model.generate("xyz", max_tokens=2)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(model.beam_search("xyz", beams=3, max_tokens=12)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.token_ids for one in found} == {model.beam_search("xyz", beams=3, max_tokens=12).token_ids}
    assert is_clean(model)


# -- on real models -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"length_penalty": 0.0, "early_stopping": "never"},
        {"length_penalty": 2.0, "early_stopping": True},
        {"length_penalty": -0.5},
    ],
    ids=str,
)
def test_transformers_finds_the_same(tmp_path, settings):
    torch = pytest.importorskip("torch")
    from transformers_models import tiny_model, transformers

    several, _ = tiny_model(tmp_path, "LlamaConfig", {"eos_token_id": list(range(1, 30))})
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    options = {
        "num_beams": 4,
        "num_return_sequences": 3,
        "max_new_tokens": 24,
        "do_sample": False,
        **settings,
    }
    with torchless.load(tmp_path, backend="reference", ctx=512) as model:
        assert model.tokenizer.eos_ids >= set(range(1, 30))
        for ids in np.asarray(several)[:2, :20].tolist():
            theirs = network.generate(
                torch.tensor([ids]), pad_token_id=399, eos_token_id=sorted(model.tokenizer.eos_ids), **options
            )
            ours = model.beam_search(ids, beams=4, n=3, max_tokens=24, **settings)
            for row, one in zip(theirs[:, len(ids) :].tolist(), ours.choices, strict=True):
                assert row[: len(one.token_ids)] == list(one.token_ids)
                ends = [token_id for token_id in row[len(one.token_ids) :] if token_id != 399]
                assert len(ends) == (one.finish_reason == "stop"), "an end token and padding"


def test_beams_have_the_bits_of_plain_texts():
    """The mean log probability is that of the same text scored by itself; more threads and drafts change nothing."""
    pytest.importorskip("torchless._core")
    prompt = "Once upon a time there was a fox. The fox saw a kite. The fox"
    found = []
    for options in ({"threads": 1}, {"threads": 2, "draft_model": "built-in"}, {"prefix_cache": False}):
        with torchless.load(ctx=512, **options) as model:
            done = model.beam_search(prompt, beams=4, n=2, max_tokens=40)
            found.append([(one.token_ids, one.mean_logprob) for one in done.choices])
            ids = model.tokenizer.encode(prompt)
            scored = model.generate([*ids, *done.token_ids], max_tokens=1, prompt_logprobs=0).prompt_logprobs
            total = sum(entry.logprob for entry in scored[len(ids) :])
            greedy = model.generate(prompt, temperature=0, max_tokens=40, logprobs=0)
            if done.finish_reason == "length":
                assert done.mean_logprob == pytest.approx(total / len(done.token_ids), rel=1e-12)
                assert len(greedy.token_ids) < 40 or done.mean_logprob >= greedy.mean_logprob - 1e-9
            assert done.text
    assert found[0] == found[1] == found[2]
