"""`torchless convert` on small files."""

from __future__ import annotations

from pathlib import Path


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
