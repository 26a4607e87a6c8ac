"""``torchless embed``, with the built-in model's file: a decoder, loaded for its states."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import torchless
from torchless.loading import BUILT_IN_MODEL

pytest.importorskip("torchless._core")

Cli = Callable[..., tuple[int, str, str]]


def test_each_text_and_each_line_becomes_a_line_of_json(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a dog\nthe sun\n")
    status, out, _ = cli("embed", BUILT_IN_MODEL, "a cat", "--file", tmp_path / "lines.txt")
    assert status == 0
    vectors = np.array([json.loads(line) for line in out.splitlines()], np.float32)
    with torchless.load(BUILT_IN_MODEL, task="embed") as llm:
        np.testing.assert_array_equal(vectors, llm.embed(["a cat", "a dog", "the sun"]))
        assert np.abs(vectors - llm.embed(["a cat", "a dog", "the sun"], pooling="mean")).max() > 0.01
    piped = cli("embed", BUILT_IN_MODEL, stdin=b"a cat\na dog\nthe sun\n")[1]
    assert piped == out


def test_vectors_go_into_a_file_and_similarities_to_the_terminal(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    status, out, _ = cli(
        *("embed", "--model", BUILT_IN_MODEL, "a cat", "a cat", "the sun", "--similarity", "-o", path),
        *("--pooling", "mean", "--no-normalize", "--dimensions", "16"),
    )
    assert status == 0
    vectors = np.load(path)
    assert vectors.shape == (3, 16) and np.linalg.norm(vectors[0]) > 1.5
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][:2] == ["1.0000", "1.0000"] and float(rows[0][2]) < 1


def test_wrong_arguments_are_named(cli: Cli, tmp_path: Path) -> None:
    assert "ends in .npy" in cli("embed", BUILT_IN_MODEL, "a", "-o", tmp_path / "vectors.json")[2]
    assert "is not one of 'mean', 'cls', 'last'" in cli("embed", BUILT_IN_MODEL, "a", "--pooling", "max")[2]
    status, _, err = cli("embed", BUILT_IN_MODEL, "word " * 400, "--ctx", "32")
    assert status != 0 and "the context holds 32" in err and "--truncate" in err
    assert cli("embed", BUILT_IN_MODEL, "word " * 400, "--ctx", "32", "--truncate")[0] == 0


def test_a_model_that_was_loaded_for_vectors_writes_no_text_and_the_other_way_round() -> None:
    with torchless.load(BUILT_IN_MODEL, task="embed") as llm, torchless.load(BUILT_IN_MODEL) as writer:
        assert llm.info["makes"] == "embeddings" and writer.info["makes"] == "text"
        with pytest.raises(torchless.InvalidRequestError, match="call embed"):
            llm.generate("a")
        with pytest.raises(torchless.InvalidRequestError, match="task='embed'"):
            writer.embed("a")
    with pytest.raises(
        torchless.InvalidRequestError, match="task must be one of auto, generate, embed, rerank"
    ):
        torchless.load(BUILT_IN_MODEL, task="chat")  # type: ignore[arg-type]
