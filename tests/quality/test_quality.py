"""Perplexity, comparison and verification against formulas written out in NumPy, and against damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

import torchless
from torchless.bench.synthetic import write_synthetic
from torchless.cli import main
from torchless.errors import InvalidRequestError
from torchless.loading import BUILT_IN_MODEL
from torchless.quality.comparison import compare_tensors
from torchless.quality.perplexity import chunks_of, score
from torchless.weights.open import open_source

pytest.importorskip("torchless._core")

DRAFT = BUILT_IN_MODEL.with_name("stories-draft.gguf")
TEXT = "Once upon a time there was a little fox. The fox found a red drum and played it every day. " * 12


@pytest.fixture(scope="module")
def models():
    with torchless.load(BUILT_IN_MODEL, ctx=64) as big, torchless.load(DRAFT, ctx=64) as small:
        yield big, small


def softmax(rows: np.ndarray) -> np.ndarray:
    exps = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def by_hand(model, ids: list[int], context: int) -> np.ndarray:
    """Probabilities that score the text: all chunks, second halves. (n, vocab)"""
    rows = []
    for first in range(0, len(ids) - context + 1, context):
        rows.append(softmax(model.logits(ids[first : first + context]))[context // 2 : -1])
    return np.concatenate(rows)


def scored_targets(ids: list[int], context: int) -> np.ndarray:
    whole = range(0, len(ids) - context + 1, context)
    return np.concatenate([ids[first + context // 2 + 1 : first + context] for first in whole])


def test_perplexity_is_the_exponential_of_the_mean_loss(models):
    big, _ = models
    ids = big.tokenizer.encode(TEXT)
    expected = by_hand(big, ids, 32)
    targets = scored_targets(ids, 32)
    losses = -np.log(expected[np.arange(len(targets)), targets])
    result = torchless.perplexity(big, TEXT, context=32)
    assert result.num_tokens == len(targets)
    assert result.value == pytest.approx(np.exp(losses.mean()), rel=1e-9)
    assert result.error == pytest.approx(result.value * losses.std(ddof=1) / np.sqrt(len(losses)), rel=1e-2)


def test_comparison_follows_its_definitions(models):
    big, small = models
    ids = big.tokenizer.encode(TEXT)
    p, q = by_hand(big, ids, 32), by_hand(small, ids, 32)
    targets = scored_targets(ids, 32)
    result = torchless.compare(big, small, TEXT, context=32)
    divergence = (p * (np.log(p) - np.log(q))).sum(axis=1)
    assert result.num_tokens == len(targets)
    assert result.divergence.value == pytest.approx(divergence.mean(), rel=1e-6)
    assert result.divergence_max == pytest.approx(divergence.max(), rel=1e-6)
    assert result.top1_agreement.value == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    rows = np.arange(len(targets))
    shift = q[rows, targets] - p[rows, targets]
    assert result.probability_rms == pytest.approx(np.sqrt((shift**2).mean()), rel=1e-6)
    assert result.perplexity_ratio.value == pytest.approx(
        torchless.perplexity(small, TEXT, context=32).value
        / torchless.perplexity(big, TEXT, context=32).value
    )


def test_a_model_is_no_distance_from_itself(models):
    big, _ = models
    result = torchless.compare(big, big, TEXT, context=32, max_chunks=2)
    assert (result.divergence.value, result.top1_agreement.value, result.perplexity_ratio.value) == (0, 1, 1)


def test_chunks_start_with_the_begin_token_and_leave_out_the_rest():
    chunks = list(chunks_of(list(range(10)), 4, 99, None))
    assert [chunk.ids for chunk in chunks] == [[99, 1, 2, 3], [99, 5, 6, 7]]
    assert [chunk.targets for chunk in chunks] == [[3], [7]]
    assert len(list(chunks_of(list(range(10)), 4, None, 1))) == 1


@pytest.mark.parametrize(("context", "chunks"), [(3, None), (64, None), (4, 0)])
def test_what_cannot_be_scored_is_refused(context, chunks):
    with pytest.raises(InvalidRequestError, match="chunk"):
        score(
            lambda ids: np.zeros((len(ids), 4), np.float32),
            list(range(40)),
            context=context,
            max_chunks=chunks,
        )


def test_the_context_must_hold_a_chunk(models):
    with pytest.raises(InvalidRequestError, match="ctx=65"):
        torchless.perplexity(models[0], TEXT, context=65)
    with pytest.raises(InvalidRequestError, match="64 and 64"):
        torchless.compare(*models, TEXT, context=65)


def test_tensors_are_compared_as_decoded(tmp_path: Path):
    """The gguf package decodes both files."""
    for recipe in ("F32", "Q8_0"):
        write_synthetic(tmp_path / f"{recipe}.gguf", "test", recipe, seed=3)
    a, b = (open_source(tmp_path / f"{recipe}.gguf") for recipe in ("F32", "Q8_0"))
    found = {item.name: item for item in compare_tensors(a, b)}
    readers = [gguf.GGUFReader(tmp_path / f"{recipe}.gguf") for recipe in ("F32", "Q8_0")]
    tensors = [{t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in r.tensors} for r in readers]
    assert found.keys() == tensors[0].keys()
    for name, item in found.items():
        x, y = tensors[0][name].astype(np.float64).ravel(), tensors[1][name].astype(np.float64).ravel()
        assert item.relative_error == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-6)
        assert item.largest_error == pytest.approx(np.abs(y - x).max(), rel=1e-6)
    a.close()
    b.close()


def test_a_folder_and_a_gguf_of_one_model_have_the_same_weights(shared_data):
    a = open_source(shared_data("stories260K/hf"))
    b = open_source(shared_data("stories260K/stories260K-f32.gguf"))
    assert all(item.largest_error == 0 for item in compare_tensors(a, b))
    assert {item.name for item in compare_tensors(a, b)} >= {"blk.0.attn_q.weight", "blk.4.attn_k.weight"}


def test_the_built_in_models_are_sound():
    for path in (BUILT_IN_MODEL, DRAFT):
        result = torchless.verify(open_source(path))
        assert result.is_sound, result.problems


@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.nan, "1 weights are not numbers"), (-np.inf, "1 weights are infinite"), (1e6, "1e+06")],
)
def test_a_broken_weight_is_named(value, problem, tmp_path: Path):
    path = tmp_path / "model.gguf"
    write_synthetic(path, "test", "F32")
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    raw = bytearray(path.read_bytes())
    raw[tensor.data_offset + 400 : tensor.data_offset + 404] = np.float32(value).tobytes()
    path.write_bytes(raw)
    result = torchless.verify(open_source(path))
    assert [p for p in result.problems if "blk.1.ffn_up.weight" in p and problem in p]


def test_verify_finds_a_flipped_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "model.gguf"
    raw = bytearray(BUILT_IN_MODEL.read_bytes())
    path.write_bytes(raw)
    assert main(["verify", str(path), "--save", str(tmp_path / "hashes.json")]) == 0
    tensor = gguf.GGUFReader(path).tensors[5]
    raw[tensor.data_offset + 100] ^= 1
    path.write_bytes(raw)
    capsys.readouterr()
    assert main(["verify", str(path), "--check", str(tmp_path / "hashes.json")]) == 1
    assert f"tensor {tensor.name} has changed" in capsys.readouterr().out


def test_the_verbs_print_what_the_library_finds(tmp_path: Path, models, capsys: pytest.CaptureFixture[str]):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    expected = torchless.perplexity(models[0], TEXT, context=32)
    assert main(["perplexity", str(text), "-c", "32"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"perplexity {expected.value:.4f} +/- {expected.error:.4f}"
    )
    assert main(["perplexity", str(BUILT_IN_MODEL), str(text), "-c", "32", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == expected.value
    assert main(["compare", str(BUILT_IN_MODEL), str(DRAFT), str(text), "-c", "32", "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["predictions"]["perplexity_a"]["value"] == pytest.approx(expected.value, rel=1e-9)
    assert report["tensors"] is None
    assert main(["compare", str(BUILT_IN_MODEL), str(DRAFT)]) == 0
    assert "relative error" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["-m", "model.gguf"], ["a", "b", "c"]])
def test_perplexity_needs_a_text(arguments, capsys: pytest.CaptureFixture[str]):
    assert main(["perplexity", *arguments]) == 2
    assert "expected a text file" in capsys.readouterr().err
