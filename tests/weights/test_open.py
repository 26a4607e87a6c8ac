"""Opening a model by what its bytes say, and the sentences for what is no model."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from torchless.errors import FormatError, ModelNotFoundError
from torchless.weights.gguf_writer import write_gguf
from torchless.weights.open import open_source


def small_gguf(path: Path) -> Path:
    write_gguf(path, {"general.architecture": "llama"}, [("a", (2,), "F32", np.zeros(8, np.uint8))])
    return path


def small_folder(path: Path) -> Path:
    header = b'{"lm_head.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.joinpath("model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    path.joinpath("config.json").write_text('{"model_type": "llama"}')
    return path


def test_the_bytes_decide_and_not_the_name(tmp_path: Path) -> None:
    file = small_gguf(tmp_path / "model.safetensors")
    assert open_source(file).format == "gguf"
    assert open_source(str(file)).path == file


def test_a_folder_is_opened_by_what_it_holds(tmp_path: Path) -> None:
    assert open_source(small_folder(tmp_path)).format == "safetensors"
    assert open_source(tmp_path / "model.safetensors").format == "safetensors"
    other = tmp_path / "gguf"
    other.mkdir()
    small_gguf(other / "king-of-kings.gguf")
    assert open_source(other).format == "gguf"
    small_gguf(other / "b.gguf")
    with pytest.raises(FormatError, match=r"several GGUF files.*b\.gguf, king-of-kings\.gguf"):
        open_source(other)


def test_a_name_that_is_not_there_gets_suggestions(tmp_path: Path) -> None:
    small_gguf(tmp_path / "qwen3-0.6b-q4_k_m.gguf")
    with pytest.raises(ModelNotFoundError, match=r"did you mean qwen3-0\.6b-q4_k_m\.gguf\?"):
        open_source(tmp_path / "qwen3-0.6b-q4km.gguf")
    with pytest.raises(ModelNotFoundError, match=r"the models in that folder are qwen3-0\.6b-q4_k_m\.gguf"):
        open_source(tmp_path / "x")
    with pytest.raises(ModelNotFoundError, match="nor a folder"):
        open_source(tmp_path / "nowhere" / "x.gguf")
    for name in ("a\0b", "x" * 5000, "qwen3-0.6b-q4_k_m.gguf/inside"):
        with pytest.raises(ModelNotFoundError):
            open_source(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "x")


def test_what_is_no_model_is_described(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for data, message in (
        (b"", "empty"),
        (b"hello world", r"starts with b'hello world'"),
        (b"tjgg" + bytes(20), "before GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (pickle.dumps({"a": 1}, 2), "PyTorch checkpoint.*safetensors"),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=message):
            open_source(path)


def test_a_pytorch_checkpoint_is_refused_with_advice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.anything", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    (tmp_path / "pytorch_model.bin").write_bytes(b"whatever")
    for path in (tmp_path / "weights.anything", tmp_path / "pytorch_model.bin", tmp_path):
        with pytest.raises(FormatError, match=r"PyTorch checkpoint.*convert it to safetensors"):
            open_source(path)


def test_a_folder_without_a_model_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="found nothing"):
        open_source(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FormatError, match=r"found notes\.txt"):
        open_source(tmp_path)


def test_devices_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a regular file"):
        open_source("/dev/null")
    if os.getuid() != 0:
        file = small_gguf(tmp_path / "x.gguf")
        file.chmod(0)
        with pytest.raises(ModelNotFoundError, match="cannot be read"):
            open_source(file)
