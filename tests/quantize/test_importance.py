"""Importance matrices: measured, written, read in both forms, used."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import torchless
from torchless.bench.synthetic import write_synthetic
from torchless.errors import FormatError, InvalidRequestError, ModelNotFoundError
from torchless.loading import BUILT_IN_MODEL
from torchless.quantization.importance import ImportanceMatrix, read_importance, write_importance

TEXT = "Once upon a time there was a little cat who liked to sleep in the sun. " * 8


@pytest.fixture(scope="module")
def matrix() -> ImportanceMatrix:
    return torchless.imatrix(BUILT_IN_MODEL, TEXT, context=32, max_chunks=3, dataset="cats.txt")


def test_every_matrix_but_the_output_is_measured(matrix: ImportanceMatrix) -> None:
    parts = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
    assert {name.split(".")[2] for name in matrix.means} == parts
    assert all((counts == 3 * 32).all() for counts in matrix.counts.values())
    # The same rows go into all three, and norms leave a mean square near the norm's weights.
    np.testing.assert_array_equal(matrix.means["blk.0.attn_q.weight"], matrix.means["blk.0.attn_k.weight"])
    assert all(np.isfinite(means).all() and (means >= 0).all() for means in matrix.means.values())


def test_the_gguf_form_survives_a_round_trip(matrix: ImportanceMatrix, tmp_path: Path) -> None:
    write_importance(tmp_path / "im.gguf", matrix)
    again = read_importance(tmp_path / "im.gguf")
    assert (again.chunks, again.chunk_tokens, again.datasets) == (3, 32, ("cats.txt",))
    for name, means in matrix.means.items():
        np.testing.assert_allclose(again.means[name], means, rtol=1e-6)


def test_the_older_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "im.dat"
    name = b"blk.0.attn_q.weight"
    entry = struct.pack("<i", len(name)) + name + struct.pack("<ii4f", 5, 4, 5.0, 10.0, 0.0, 20.0)
    path.write_bytes(struct.pack("<i", 1) + entry + struct.pack("<ii", 7, 4) + b"text")
    found = read_importance(path)
    np.testing.assert_array_equal(found.means[name.decode()], [[1.0, 2.0, 0.0, 4.0]])
    assert found.chunks == 7 and found.datasets == ("text",)
    weights = found.of(name.decode())
    assert weights is not None and (weights > 0).all()
    assert found.of("blk.1.attn_q.weight") is None


def test_what_is_no_importance_matrix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.dat").write_bytes(struct.pack("<ii", 1, 100) + b"blk")
    with pytest.raises(FormatError, match="ends inside an entry"):
        read_importance(tmp_path / "cut.dat")
    with pytest.raises(FormatError, match="no tensor that ends in"):
        read_importance(BUILT_IN_MODEL)
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        read_importance(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("blk.0.attn_q.weight", (1, 128), r"has 128 columns, the model's 256: it belongs to another model"),
        ("blk.0.attn_q.weight", (4, 256), r"has 4 experts, the model's 1: it belongs"),
        ("blk.0.other.weight", (1, 256), r"none of its 1 matrices is in the model: it belongs"),
    ],
)
def test_a_matrix_of_another_model_is_refused_before_anything_is_written(
    name: str, shape: tuple[int, int], message: str, tmp_path: Path
) -> None:
    refuse_matrix({name: np.ones(shape, np.float32)}, message, tmp_path)


def test_a_matrix_of_a_deeper_model_is_refused(tmp_path: Path) -> None:
    names = [f"blk.{layer}.attn_q.weight" for layer in range(9)]
    message = r"it has a layer 8 \(from 0\), the model 2 layers"
    refuse_matrix({name: np.ones((1, 256), np.float32) for name in names}, message, tmp_path)


def refuse_matrix(means: dict[str, np.ndarray], message: str, folder: Path) -> None:
    write_synthetic(folder / "model.gguf", "test", "BF16")
    counts = {name: np.ones(len(values), np.float32) for name, values in means.items()}
    write_importance(folder / "im.gguf", ImportanceMatrix(means, counts, 2))
    with pytest.raises(InvalidRequestError, match=message):
        torchless.quantize(folder / "model.gguf", folder / "a.gguf", "Q4_K_S", imatrix=folder / "im.gguf")
    assert not (folder / "a.gguf").exists()


def test_importance_changes_the_bytes_and_is_told_in_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from torchless.weights.gguf import GgufSource

    write_synthetic(tmp_path / "model.gguf", "test", "BF16")
    columns = np.random.default_rng(0).random((1, 256), np.float32) ** 4
    name = "blk.0.attn_q.weight"
    write_importance(
        tmp_path / "im.gguf", ImportanceMatrix({name: columns}, {name: np.array([9], np.float32)}, 2)
    )
    torchless.quantize(tmp_path / "model.gguf", tmp_path / "a.gguf", "Q4_K_S")
    torchless.quantize(tmp_path / "model.gguf", tmp_path / "b.gguf", "Q4_K_S", imatrix=tmp_path / "im.gguf")
    with GgufSource(tmp_path / "a.gguf") as plain, GgufSource(tmp_path / "b.gguf") as aware:
        differ = [name for name in plain.tensors if (plain.raw(name) != aware.raw(name)).any()]
        assert differ == [name]
        assert aware.metadata["quantize.imatrix.file"] == "im.gguf"
        assert aware.metadata["quantize.imatrix.entries_count"] == 1
    assert "says nothing of 13 of 14 matrices in layers, such as blk.0" in caplog.text
