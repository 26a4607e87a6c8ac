"""`torchless convert` on small files."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import pytest
from cli_processes import Terminal, command
from hf_models import write_hf_model
from safetensors.numpy import load_file, save_file


def test_a_model_goes_to_a_folder_and_back(cli, plain_model: Path, tmp_path: Path) -> None:
    assert cli("convert", plain_model, tmp_path / "folder") == (0, "", "")
    assert (tmp_path / "folder" / "model.safetensors").is_file()
    assert cli("convert", tmp_path / "folder", tmp_path / "cut.gguf", "--split-max-size", "10K") == (
        0,
        "",
        "",
    )
    assert len(list(tmp_path.glob("cut-00*.gguf"))) > 1
    assert cli("convert", tmp_path / "folder", tmp_path / "out.gguf", "--type", "bf16")[0] == 0
    status, out, _ = cli("tokenize", "-m", tmp_path / "out.gguf", "hi")
    assert status == 0 and out == cli("tokenize", "-m", plain_model, "hi")[1]


def test_a_mistake_is_one_sentence(cli, plain_model: Path, tmp_path: Path) -> None:
    status, out, err = cli("convert", plain_model, plain_model)
    assert (status, out) == (1, "") and "source and destination are the same" in err
    status, _, err = cli("convert", plain_model)
    assert status == 2 and "DST" in err


@pytest.mark.parametrize("verb", ["show", "run", "convert"])
def test_a_person_at_the_terminal_reads_how_stored_numbers_were_unpacked(verb: str, tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("up_proj.weight"))
    tensors[name] = tensors[name].astype(ml_dtypes.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    more = {"show": [], "run": ["once", "-n", "1"], "convert": [tmp_path / "out.gguf"]}[verb]
    with Terminal(command(verb, folder, *more), num_columns=200) as terminal:
        assert terminal.wait() == 0, terminal.screen
        assert terminal.screen.count("1 tensor is stored as F8_E4M3 and read as BF16, exactly") == 1
