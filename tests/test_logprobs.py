"""Log probabilities of answers and prompts: right, the same whatever runs beside them, and not in anybody's way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits
from test_llm import A9, BOS, C3, EOS, VOCAB, ids_of, make

import torchless
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.sampling.chain import Sampler
from torchless.sampling.logprobs import LogprobRecorder
from torchless.sampling.parameters import SamplingParams

TOLERANCE = 1e-12


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of rows (n, vocab), in float64."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def check(entry: Any, logprobs: np.ndarray, token_id: int, num_top: int, tolerance: float) -> None:
    """An entry against a row of log probabilities."""
    assert entry.token_id == token_id
    assert entry.logprob == pytest.approx(logprobs[token_id], abs=tolerance)
    assert len(entry.top) == num_top
    for other in entry.top:
        assert other.logprob == pytest.approx(logprobs[other.token_id], abs=tolerance)
    best = np.sort(logprobs)[::-1][:num_top]
    np.testing.assert_allclose([other.logprob for other in entry.top], best, atol=tolerance)


@pytest.mark.parametrize("max_batch_tokens", [1, 3, 32])
@pytest.mark.parametrize("max_outputs", [1, 8])
def test_each_token_has_the_probability_that_the_model_gave_it(max_batch_tokens, max_outputs):
    model = make(max_batch_tokens=max_batch_tokens, max_outputs=max_outputs)
    done = model.generate("xyz", seed=9, max_tokens=25, logprobs=3, prompt_logprobs=2)
    tokens = [BOS, *ids_of("xyz"), *done.token_ids]
    assert len(done.logprobs) == len(done.token_ids) == 25
    assert len(done.prompt_logprobs) == 4 and done.prompt_logprobs[0] is None
    for place, entry in enumerate([*done.prompt_logprobs[1:], *done.logprobs], 1):
        row = log_softmax(expected_logits(tokens[:place], VOCAB))
        check(entry, row, tokens[place], 2 if place < 4 else 3, TOLERANCE)
    plain = model.generate("xyz", seed=9, max_tokens=25)
    assert plain.token_ids == done.token_ids and plain.logprobs is None and plain.prompt_logprobs is None


def test_they_are_the_model_s_own_whatever_the_sampler_makes_of_its_logits():
    model = make()
    forbidden = {token_id: -float("inf") for token_id in range(0, VOCAB, 2)}
    done = model.generate("xyz", seed=9, max_tokens=9, temperature=3.0, logit_bias=forbidden, logprobs=1)
    tokens = [BOS, *ids_of("xyz"), *done.token_ids]
    for place, entry in enumerate(done.logprobs, 4):
        check(entry, log_softmax(expected_logits(tokens[:place], VOCAB)), tokens[place], 1, TOLERANCE)


def test_the_end_token_is_left_out_as_it_is_of_the_ids():
    done = make(says=[*ids_of("ab"), EOS], after=2).generate("x", temperature=0, logprobs=0)
    assert done.text == "ab" and [entry.text for entry in done.logprobs] == ["a", "b"]
    assert all(entry.top == () for entry in done.logprobs)


def test_parts_of_a_character_have_their_bytes():
    done = make(says=[C3, A9], after=2).generate("x", temperature=0, max_tokens=2, logprobs=1)
    assert done.text == "é" and b"".join(entry.token_bytes for entry in done.logprobs) == "é".encode()


@pytest.mark.parametrize("options", [{}, {"stop": "lo w"}])
def test_pieces_have_those_of_their_tokens(options):
    model = make(says="hello world", after=3)
    chunks = list(model.stream("ab", temperature=0, max_tokens=11, logprobs=2, **options))
    done = chunks[-1].completion
    assert tuple(entry for chunk in chunks for entry in chunk.logprobs) == done.logprobs
    assert [[entry.token_id for entry in chunk.logprobs] for chunk in chunks] == [
        list(chunk.token_ids) for chunk in chunks
    ]
    assert all(chunk.logprobs is None for chunk in model.stream("ab", temperature=0, max_tokens=3))


def test_requests_beside_each_other_ask_for_different_things():
    model = make()
    requests = [
        torchless.Request("ab", logprobs=2),
        torchless.Request("cd", prompt_logprobs=1),
        torchless.Request("ef"),
    ]
    together = model.batch(requests, max_tokens=12, seed=5)
    alone = [model.generate(r.prompt, max_tokens=12, seed=5, **r.sampling) for r in requests]
    for one, other in zip(together, alone, strict=True):
        assert one.token_ids == other.token_ids
        assert (one.logprobs, one.prompt_logprobs) == (other.logprobs, other.prompt_logprobs)
    assert together[0].logprobs and together[0].prompt_logprobs is None and together[2].logprobs is None


def sequence(length: int, num_new: int, seed: int, **options: Any) -> Sequence:
    prompt = np.random.default_rng(seed).integers(0, VOCAB, length).astype(np.int32)
    sampler = Sampler(SamplingParams(seed=seed))
    return Sequence(prompt, max_tokens=length + num_new, sampler=sampler, **options)


def test_a_preempted_prompt_is_read_once():
    engine = Engine(FakeExecutor(num_pages=4, max_batch_tokens=20, max_outputs=6))
    old = sequence(20, 90, 1)
    young = sequence(60, 8, 2, prompt_logprobs=LogprobRecorder(1), logprobs=LogprobRecorder(1))
    engine.add(old)
    engine.add(young)
    while not (old.finish_reason and young.finish_reason):
        engine.step()
    assert young.num_preemptions >= 1
    assert len(young.prompt_logprobs) == 59 and len(young.logprobs) == 8
    tokens = young.history
    rows = [*young.prompt_logprobs._rows, *young.logprobs._rows]
    for place, row in enumerate(rows, 1):
        expected = log_softmax(expected_logits(tokens[:place], VOCAB))
        assert row.token_id == tokens[place]
        assert row.logprob == pytest.approx(expected[tokens[place]], abs=TOLERANCE)


# -- on the CPU backend ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def story_model() -> Any:
    pytest.importorskip("torchless._core")
    with torchless.load(ctx=512, threads=1, speculative="off") as model:
        yield model


PROMPT = "Once upon a time there was a fox. The fox saw a kite. The fox"


def test_they_are_those_of_the_logits(story_model):
    done = story_model.generate(PROMPT, seed=3, max_tokens=20, logprobs=5, prompt_logprobs=5)
    prompt = story_model.tokenizer.encode(PROMPT)
    tokens = [*prompt, *done.token_ids]
    rows = log_softmax(story_model.logits(tokens))
    for place, entry in enumerate([*done.prompt_logprobs[1:], *done.logprobs], 1):
        check(entry, rows[place - 1], tokens[place], 5, TOLERANCE)
    assert "".join(entry.text for entry in done.logprobs) == done.text


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 2},
        {"batch_tokens": 7},
        {"draft_model": "built-in", "num_draft_tokens": 5, "speculative": "both"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_they_have_the_same_bits_however_they_are_computed(story_model, options):
    asked = {"seed": 3, "max_tokens": 40, "logprobs": 4, "prompt_logprobs": 2}
    expected = story_model.generate(PROMPT, **asked)
    with torchless.load(ctx=512, **{"threads": 1, "speculative": "off", **options}) as model:
        others = [model.submit(PROMPT[i:], seed=i, max_tokens=30) for i in range(3)]
        found = model.generate(PROMPT, **asked)
        assert all(other.result().text for other in others)
    assert (found.logprobs, found.prompt_logprobs) == (expected.logprobs, expected.prompt_logprobs)


def test_a_text_has_one_for_each_token(story_model):
    ids = story_model.tokenizer.encode(PROMPT)
    found = story_model.logprobs(PROMPT)
    assert found.shape == (len(ids),) and found.dtype == np.float64 and np.isnan(found[0])
    rows = log_softmax(story_model.logits(ids))
    np.testing.assert_allclose(found[1:], rows[np.arange(len(ids) - 1), ids[1:]], atol=TOLERANCE)
    assert np.isnan(story_model.logprobs(ids[:1])).tolist() == [True]


def test_llama_cpp_finds_the_same(story_model):
    llama_cpp = pytest.importorskip("llama_cpp")
    path = story_model.info["path"]
    peer = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, logits_all=True, verbose=False)
    tokens = story_model.tokenizer.encode(PROMPT)
    peer.eval(tokens)
    theirs = log_softmax(np.array(peer.scores[: len(tokens)], np.float32))
    found = story_model.generate(tokens, max_tokens=1, prompt_logprobs=3).prompt_logprobs
    ours = [entry.logprob for entry in found[1:]]
    expected = theirs[np.arange(len(tokens) - 1), tokens[1:]]  # its products round otherwise
    np.testing.assert_allclose(ours, expected, atol=0.3)
    np.testing.assert_allclose(np.exp(ours), np.exp(expected), atol=0.03)


def test_transformers_finds_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers_models import tiny_model

    several, logits = tiny_model(tmp_path, "LlamaConfig", {})
    ids = np.asarray(several)[0].tolist()
    expected = torch.log_softmax(torch.tensor(np.asarray(logits)[0]).double(), dim=-1).numpy()
    with torchless.load(tmp_path, backend="reference", ctx=64) as model:
        found = model.generate(ids, max_tokens=1, temperature=0, logprobs=4, prompt_logprobs=4)
    tokens = [*ids, *found.token_ids]
    for place, entry in enumerate([*found.prompt_logprobs[1:], *(found.logprobs or ())], 1):
        check(entry, expected[place - 1], tokens[place], 4, 1e-4)
