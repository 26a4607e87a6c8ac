"""From file to text with a real trained model, against ids and logits that other programs computed."""

import json

import numpy as np
import pytest

import torchless

# Golden tokens of an answer that a file must reach. Rounding the weights to f16 moves logits by more than the
# smallest margin of the golden ids (0.0009): exact arithmetic on the f16 file leaves one answer at token 165.
FILES = {"stories260K-f32.gguf": 200, "stories260K-f16.gguf": 160, "hf": 200}


@pytest.fixture(scope="module")
def golden(shared_data):
    return json.loads(shared_data("stories260K/golden.json").read_text())


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    if request.param == "cpu":
        pytest.importorskip("torchless._core")
    return request.param


@pytest.mark.parametrize("name", FILES)
def test_greedy_answers_are_the_golden_ones(name, backend, shared_data, golden):
    path = shared_data(f"stories260K/{name}")
    with torchless.load(path, backend=backend, threads=1) as model:
        for case in golden:
            expected = case["greedy"][: FILES[name]]
            completion = model.generate(case["prompt"], temperature=0, max_tokens=len(expected))
            assert list(completion.token_ids) == expected
            assert case["text"].startswith(completion.text)
            assert len(expected) < len(case["greedy"]) or completion.text == case["text"]


def test_logits_with_an_unrounded_cache_are_within_1e_4_of_the_golden_ones(backend, shared_data, golden):
    path = shared_data("stories260K/stories260K-f32.gguf")
    with torchless.load(path, backend=backend, kv="f32", threads=1) as model:
        for case in golden:
            logits = model.logits(case["prompt"])
            assert logits.shape == (len(case["ids"]), 512)
            np.testing.assert_allclose(logits[-1], case["logits_after_prompt"], atol=1e-4)


def test_chunks_threads_and_neighbours_do_not_change_a_bit(shared_data, golden):
    """The promise, through the front door: the hash covers the bits of every logit that was sampled from."""
    pytest.importorskip("torchless._core")
    path = shared_data("stories260K/stories260K-Q8_0.gguf")
    prompts = [case["prompt"] for case in golden]
    options = {"seed": 5, "max_tokens": 40, "logits_hash": True}
    seen = []
    for batch_tokens, threads in ((1, 1), (7, 2), (64, 1), (512, 2)):
        with torchless.load(path, batch_tokens=batch_tokens, threads=threads) as model:
            alone = [model.generate(prompt, **options) for prompt in prompts]
            together = model.batch(prompts, **options)
        seen += [[(c.text, c.logits_hash) for c in completions] for completions in (alone, together)]
    assert all(completions == seen[0] for completions in seen)
    assert len({logits_hash for _, logits_hash in seen[0]}) == len(prompts)
