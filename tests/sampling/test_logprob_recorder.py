"""What is read off a row of logits, against the definition in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchless.errors import InvalidRequestError
from torchless.sampling.logprobs import LogprobRecorder
from torchless.sampling.parameters import SamplingParams
from torchless.text.tokenizer import Tokenizer

PIECES = ["<s>", "</s>", "a", "<0xC3>", "<0xA9>", "\u2581b"]
TOKENIZER = Tokenizer.from_metadata(
    {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": PIECES,
        "tokenizer.ggml.scores": [0.0] * len(PIECES),
        "tokenizer.ggml.token_type": [3, 3, 1, 6, 6, 1],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }
)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    values = [float(value) for value in logits]
    peak = max(values)
    total = math.log(math.fsum(math.exp(value - peak) for value in values))
    return np.array([value - peak - total for value in values])


@settings(deadline=None)
@given(
    st.lists(st.floats(-60, 60, width=32), min_size=21, max_size=60),
    st.integers(0, 20),
    st.data(),
)
def test_log_probabilities_are_those_of_the_softmax(values, num_top, data):
    logits = np.array(values, np.float32)
    token_id = data.draw(st.integers(0, len(values) - 1))
    recorder = LogprobRecorder(num_top)
    recorder.add(logits, token_id)
    (entry,) = recorder.entries(TOKENIZER)
    expected = log_softmax(logits)
    assert entry.token_id == token_id and entry.logprob == pytest.approx(expected[token_id], abs=1e-12)
    order = sorted(range(len(values)), key=lambda i: (-logits[i], i))[:num_top]
    assert [other.token_id for other in entry.top] == order
    np.testing.assert_allclose([other.logprob for other in entry.top], expected[order], atol=1e-12)
    assert recorder.mean == entry.logprob


def test_far_logits_neither_overflow_nor_vanish():
    recorder = LogprobRecorder(2)
    recorder.add(np.array([3e38, -3e38, 3e38], np.float32), 1)
    (entry,) = recorder.entries(TOKENIZER)
    assert entry.logprob == pytest.approx(-6e38, rel=1e-6)
    assert [other.logprob for other in entry.top] == pytest.approx([-math.log(2)] * 2)


def test_tokens_have_their_text_and_bytes():
    recorder = LogprobRecorder(0)
    for token_id in (1, 2, 3, 5, 6):  # the last is padding of the model's vocabulary
        recorder.add(np.zeros(8, np.float32), token_id)
    entries = recorder.entries(TOKENIZER)
    assert [entry.text for entry in entries] == ["</s>", "a", "\ufffd", " b", ""]
    assert [entry.token_bytes for entry in entries] == [b"</s>", b"a", b"\xc3", b" b", b""]
    recorder.truncate(2)
    assert [entry.token_id for entry in recorder.entries(TOKENIZER)] == [1, 2]
    assert [entry.token_id for entry in recorder.entries(TOKENIZER, 1)] == [2]


@pytest.mark.parametrize("chunk", [1, 2, 3, 9])
def test_a_prompt_may_be_read_in_any_chunks_and_again(chunk):
    rows = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    prompt = np.array([2, 5, 2, 3, 4, 2], np.int32)
    whole, parts = LogprobRecorder(1), LogprobRecorder(1)
    whole.add_prompt(0, rows, prompt)
    for first in [0, *range(0, 6, chunk)]:  # the first chunk twice, as after a preemption
        parts.add_prompt(first, rows[first : first + chunk], prompt)
    assert len(whole) == 5, "what follows the prompt is none of it"
    assert whole.entries(TOKENIZER) == parts.entries(TOKENIZER)
    expected = [log_softmax(rows[i])[prompt[i + 1]] for i in range(5)]
    np.testing.assert_allclose([entry.logprob for entry in whole.entries(TOKENIZER)], expected)


def test_how_many_is_a_small_whole_number_or_a_switch():
    assert SamplingParams().logprobs is None
    assert SamplingParams.from_kwargs(logprobs=True).logprobs == 0
    assert SamplingParams.from_kwargs(logprobs=False).logprobs is None
    assert SamplingParams.from_kwargs(logprobs=True, top_logprobs=5).logprobs == 5, "OpenAI's chat"
    assert SamplingParams.from_kwargs(logprobs=5, prompt_logprobs=0).prompt_logprobs == 0
    with pytest.raises(TypeError, match="twice"):
        SamplingParams.from_kwargs(logprobs=3, top_logprobs=5)
    for wrong in (-1, 21, 1.5, "3"):
        with pytest.raises(InvalidRequestError, match="logprobs must be a whole number from 0 to 20"):
            SamplingParams(logprobs=wrong)
