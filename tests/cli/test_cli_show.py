"""`torchless show`, `tokenize` and `info` on small files written by the gguf package."""

from __future__ import annotations

import json
import math
import sys

import gguf
import numpy as np
import pytest
from cli_models import CHAT_TEMPLATE, LAYERS, vocabulary, write_model

from torchless import __version__
from torchless.cli.discovery import names_in


def test_the_summary_says_what_a_user_asks(cli, plain_model):
    status, out, err = cli("show", plain_model)
    assert (status, err) == (0, "")
    for text in (
        "name          tiny test model",
        "architecture  llama",
        "runs          yes",
        "context     256 tokens",
        "layers      2",
        "heads       4 of 8",
        "width       32, 64 inside the MLP",
        f"SentencePiece, {len(vocabulary()[0])} tokens",
        "bos <s>, eos </s>",
        "none: the model continues text",
        "temperature 0.8, top_k 40",
    ):
        assert text in out, text
    assert "\x1b" not in out


def test_weights_are_summed_by_type(cli, plain_model):
    reader = gguf.GGUFReader(plain_model)
    count = sum(int(tensor.n_elements) for tensor in reader.tensors)
    size = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    line = next(line for line in cli("show", plain_model)[1].splitlines() if line.split()[:1] == ["F32"])
    assert line.split()[:3] == ["F32", str(len(reader.tensors)), f"{count:,}"]
    assert line.split()[-2:] == ["100.0%", "f32"]
    report = json.loads(cli("show", plain_model, "--json")[1])
    assert (report["num_parameters"], report["tensor_bytes"]) == (count, size)


def test_json_is_complete_and_valid(cli, tmp_path):
    """Against the gguf package: all keys, arrays in full, all tensors; nothing that JSON lacks."""
    path = write_model(
        tmp_path / "odd.gguf", chat_template=CHAT_TEMPLATE, **{"test.inf": math.inf, "test.nan": math.nan}
    )
    text = cli("show", path, "--json")[1]
    report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    reader = gguf.GGUFReader(path)
    expected = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    expected |= {"test.inf": "inf", "test.nan": "nan"}
    assert report["metadata"] == expected
    assert len(report["metadata"]["tokenizer.ggml.tokens"]) == len(vocabulary()[0])
    assert report["metadata_types"]["llama.context_length"] == "UINT32"
    assert report["metadata_types"]["tokenizer.ggml.tokens"] == "ARRAY of STRING"
    assert {tensor["name"]: tensor["shape"] for tensor in report["tensors"]} == {
        tensor.name: [int(size) for size in reversed(tensor.shape)] for tensor in reader.tensors
    }
    assert report["chat_templates"] == {"default": CHAT_TEMPLATE}
    assert report["runs"] is True and report["refusal"] is None


def test_the_plan_is_printed(cli, plain_model):
    from torchless.models import record_plan
    from torchless.weights.open import open_source

    source = open_source(plain_model)
    assert cli("show", plain_model, "--plan") == (0, f"{record_plan(source)[0]}\n", "")
    source.close()


def test_stages_tell_what_was_fused(cli, plain_model, monkeypatch):
    pytest.importorskip("torchless._core")
    status, out, _ = cli("show", plain_model, "--stages")
    assert status == 0
    for text in ("3 products of one input", "addition to the residual", "the work of stage", "best logits"):
        assert text in out, text
    monkeypatch.setenv("TORCHLESS_FUSE", "0")
    _, out, _ = cli("show", plain_model, "--stages")
    assert "not fused (TORCHLESS_FUSE=0)" in out.splitlines()[0]
    assert "+" not in out


def test_metadata_is_listed_with_long_values_shortened(cli, chat_model):
    out = cli("show", chat_model, "--metadata")[1]
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert lines["llama.block_count"] == str(LAYERS)
    assert lines["general.name"] == '"tiny test model"'
    assert lines["tokenizer.ggml.tokens"] == (
        f'{len(vocabulary()[0])} values: ["<unk>", "<s>", "</s>", "<0x00>", "<0x01>", "<0x02>", ...]'
    )
    assert lines["llama.attention.layer_norm_rms_epsilon"] == "1e-05"
    assert "\\n" in lines["tokenizer.chat_template"]  # one line each


def test_tensors_are_listed(cli, plain_model):
    lines = [line.split() for line in cli("show", plain_model, "--tensors")[1].splitlines()]
    assert lines[0] == ["name", "type", "shape", "bytes"]
    assert ["blk.1.ffn_down.weight", "F32", "32", "x", "64", str(32 * 64 * 4)] in lines


def test_the_template_is_printed_as_it_stands(cli, chat_model, plain_model):
    assert cli("show", chat_model, "--template") == (0, CHAT_TEMPLATE + "\n", "")
    status, out, err = cli("show", plain_model, "--template")
    assert (status, out) == (1, "") and "has no chat template" in err


def test_a_model_that_cannot_run_is_described_all_the_same(cli, tmp_path):
    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "strange-net")
    writer.add_tensor("x", np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    status, out, _ = cli("show", path)
    assert status == 0
    assert "runs          no: the model's architecture 'strange-net' is not supported" in out
    assert json.loads(cli("show", path, "--json")[1])["runs"] is False
    status, _, err = cli("show", path, "--plan")
    assert status == 1 and "strange-net" in err


def test_hostile_metadata_cannot_drive_the_terminal(cli, tmp_path):
    path = write_model(tmp_path / "hostile.gguf", **{"general.name": "a\x1b]0;owned\x07\x9b2J"})
    for option in ([], ["--metadata"], ["--json"]):
        out = cli("show", path, *option)[1]
        assert "\x1b" not in out and "\x07" not in out and "\x9b" not in out


def test_broken_files_are_named(cli, tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00")
    status, out, err = cli("show", path)
    assert (status, out) == (1, "") and err.startswith(f"error: {path}: ")
    assert cli("show", tmp_path / "nosuch.gguf")[0] == 1
    assert cli("show", "a", "b")[0] == 2


def test_shared_models_are_described(cli, shared_data):
    out = cli("show", shared_data("stories260K") / "stories260K-Q8_0.gguf")[1]
    assert "parameters    260 K (260,032)" in out
    assert "heads       8 of 8, 4 for keys and values" in out
    out = cli("show", shared_data("vocab") / "ggml-vocab-llama-bpe.gguf")[1]
    assert "No tensors" in out and "pre-tokenizer llama-bpe, 128256 tokens" in out


# -- tokenize -------------------------------------------------------------------------------------


def ids_of(*pieces: str) -> list[int]:
    return [vocabulary()[0].index(piece) for piece in pieces]


@pytest.fixture
def sentence():
    return ids_of("<s>", "▁the", "▁cat", "▁sat", ".")


def test_ids_are_printed(cli, plain_model, sentence):
    expected = " ".join(map(str, sentence)) + "\n"
    assert cli("tokenize", plain_model, "the cat sat.") == (0, expected, "")
    assert cli("tokenize", plain_model, stdin=b"the cat sat.\n")[1] == expected
    assert cli("tokenize", "-m", plain_model, "-p", "the cat sat.")[1] == expected
    assert cli("tokenize", plain_model, "the", "cat", "sat.")[1] == expected


def test_ids_in_other_forms(cli, plain_model, sentence):
    run = lambda *options: cli("tokenize", plain_model, "the cat sat.", *options)[1]  # noqa: E731
    assert json.loads(run("--json")) == sentence
    assert run("--count") == f"{len(sentence)}\n"
    assert json.loads(run("--json", "--no-special")) == sentence[1:]
    pieces = run("--pieces").splitlines()
    assert [line.split(maxsplit=1) for line in pieces][:3] == [
        [str(sentence[0]), "'<s>'"],
        [str(sentence[1]), "' the'"],
        [str(sentence[2]), "' cat'"],
    ]


def test_control_tokens_are_text_unless_asked_for(cli, plain_model):
    as_text = json.loads(cli("tokenize", plain_model, "</s>", "--json")[1])
    as_token = json.loads(cli("tokenize", plain_model, "</s>", "--json", "--parse-special")[1])
    assert 2 not in as_text and as_token[-1] == 2


@pytest.mark.parametrize("form", ["{} {} {}", "{},{}, {}", "[{}, {}, {}]", "{}\n{}\n{}\n"])
def test_ids_are_decoded(cli, plain_model, form):
    text = form.format(*ids_of("▁the", "▁cat", "▁sat"))
    assert cli("tokenize", plain_model, "--decode", text) == (0, "the cat sat\n", "")
    assert cli("tokenize", plain_model, "--decode", stdin=text.encode())[1] == "the cat sat\n"
    assert cli("tokenize", plain_model, "--decode", "--json", text)[1] == '"the cat sat"\n'


def test_nonsense_ids_are_refused(cli, plain_model):
    status, _, err = cli("tokenize", plain_model, "--decode", "1 x")
    assert status == 1 and "--decode takes token ids, found 'x'" in err
    status, _, err = cli("tokenize", plain_model, "--decode", "999999")
    assert status == 1 and "999999" in err


def test_single_bytes_are_shown_readably(cli, plain_model):
    lines = cli("tokenize", plain_model, "é\x1b", "--pieces")[1].splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["'\\xc3'", "'\\xa9'", "'␛'"]


def test_tokenize_needs_a_text(cli, plain_model, monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    from torchless.cli import main

    assert main(["tokenize", str(plain_model)]) == 2


# -- info -----------------------------------------------------------------------------------------


def test_info_lists_what_was_found(cli):
    status, out, err = cli("info")
    assert (status, err) == (0, "")
    assert f"version     {__version__}" in out
    assert f"verbs           {', '.join(names_in('cli/verbs'))}" in out
    assert "llama" in out and "Q4_K" in out and "reference" in out


def test_info_as_json(cli):
    report = json.loads(cli("info", "--json")[1])
    assert report["torchless"]["version"] == __version__
    assert set(report["found"]["backends"]) >= {"cpu", "reference"}
    assert report["machine"]["usable_cores"] >= 1
    assert report["built_in_model"]["path"]
    sets = report["machine"]
    if "instruction_sets" in sets:
        assert sets["instruction_set"] in sets["instruction_sets"]


def test_info_works_without_the_core(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchless._core", None)
    import torchless

    monkeypatch.delattr(torchless, "_core", raising=False)
    status, out, _ = cli("info")
    assert status == 0 and "none, the C++ core cannot be used" in out


def test_a_model_that_fills_gaps_says_with_which_tokens(cli, tmp_path, plain_model):
    path = write_model(tmp_path / "marks.gguf", marks=True)
    line = next(line for line in cli("show", path)[1].splitlines() if "fills gaps" in line)
    assert "order psm, fim_pre ▁<PRE>, fim_suf ▁<SUF>, fim_mid ▁<MID>" in line
    assert json.loads(cli("show", path, "--json")[1])["tokenizer"]["infill"]["fim_mid"] == "▁<MID>"
    assert "fills gaps" not in cli("show", plain_model)[1]
