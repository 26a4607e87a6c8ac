"""`torchless run --fim`: what the model is asked, what is printed, and what is refused."""

from __future__ import annotations

import pytest
from cli_models import write_model

from torchless.cli.verbs import run
from torchless.text.tokenizer import Tokenizer
from torchless.weights.gguf import GgufSource


def test_two_texts_are_asked_for_what_stands_between_them(cli, fake_llm):
    llm = fake_llm(["return", " x"])
    assert cli("run", "m.gguf", "--fim", "def f(x):", "\n", "-n", "5") == (0, "return x\n", "")
    assert llm.loaded_with["model"] == "m.gguf"
    assert llm.requests == [
        ("stream_infill", ("def f(x):", "\n", None), {"max_tokens": 5, "logits_hash": False})
    ]


def test_a_file_marks_its_gap(cli, fake_llm, tmp_path):
    path = tmp_path / "code.py"
    path.write_text("def f(x):\n<FILL_ME>\n\nf(1)\n")
    for arguments, stdin in ((["--fim-file", path], b""), (["--fim-file", "-"], path.read_bytes())):
        llm = fake_llm(["    pass"], has_template=True)
        assert cli("run", "-m", "m.gguf", *arguments, stdin=stdin) == (0, "    pass\n", "")
        assert llm.requests[0][:2] == ("stream_infill", ("def f(x):\n", "\n\nf(1)", None))


def test_the_whole_text_is_printed_on_request(cli, fake_llm, tmp_path):
    path = tmp_path / "code.py"
    path.write_text("def f(x):\n<FILL_ME>\n\nf(1)\n")
    fake_llm(["    pass"])
    assert cli("run", "m.gguf", "--fim-file", path, "--echo")[1] == "def f(x):\n    pass\n\nf(1)\n"


def test_what_was_typed_is_shown_on_a_terminal(cli, fake_llm, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "is_terminal", lambda stream: True)
    fake_llm(["b"])
    assert cli("run", "m.gguf", "--fim", "a", "c")[1] == "abc\n"
    (tmp_path / "x").write_text("a<FILL_ME>c")
    assert cli("run", "m.gguf", "--fim-file", tmp_path / "x")[1] == "b\n"
    assert cli("run", "m.gguf", "--fim", "a", "c", "--no-echo")[1] == "b\n"


def test_the_order_and_an_empty_side_are_passed_on(cli, fake_llm):
    llm = fake_llm()
    assert cli("run", "m.gguf", "--infill", "", "b", "--fim-order", "SPM")[0] == 0
    assert llm.requests[0][1] == ("", "b", "spm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fim", "a", "b", "--fim-file", "x"], "give either --fim or --fim-file, not both"),
        (["--fim-order", "psm"], "--fim-order says how a gap is filled; add --fim or --fim-file"),
        (["--fim", "a", "b", "-p", "text"], "--prompt has no meaning beside --fim"),
        (["--fim", "a", "b", "-f", "file"], "--file has no meaning beside --fim"),
        (["--fim", "a", "b", "--system", "s"], "--system has no meaning beside --fim"),
        (["--fim", "a", "b", "--chat"], "--chat has no meaning beside --fim"),
        (["a prompt", "--fim", "a", "b"], "a prompt was given twice"),
        (["--fim", "a"], "'--fim' requires 2 arguments"),
    ],
)
def test_contradictions_are_usage_errors(cli, fake_llm, arguments, message):
    llm = fake_llm()
    status, _, error = cli("run", "m.gguf", *arguments)
    assert status == 2 and message in error.replace("Option ", "")
    assert not llm.loaded_with


@pytest.mark.parametrize(("text", "count"), [("no gap", 0), ("<FILL_ME> and <FILL_ME>", 2)])
def test_a_file_without_one_gap_is_refused(cli, fake_llm, tmp_path, text, count):
    fake_llm()
    (tmp_path / "code.py").write_text(text)
    status, _, error = cli("run", "m.gguf", "--fim-file", tmp_path / "code.py")
    assert status == 1
    assert f"code.py: <FILL_ME> stands in it {count} times; expected it once, where the gap is" in error


def test_a_real_model_fills_a_gap(cli, tmp_path):
    """End to end: the ids of the prompt decide the answer, which stops at the model's own marks."""
    path = write_model(tmp_path / "tiny.gguf", marks=True)
    with GgufSource(path) as source:
        tokenizer = Tokenizer.from_metadata(source.metadata)
    ids = tokenizer.encode_infill("once upon", " the mat")
    import torchless

    with torchless.load(path, ctx=64, threads=1) as model:
        wanted = model.generate(ids, temperature=0, max_tokens=8)
        filled = model.infill("once upon", " the mat", temperature=0, max_tokens=8)
        chunks = list(model.stream_infill("once upon", " the mat", temperature=0, max_tokens=8))
    assert filled.usage.num_prompt_tokens == len(ids)
    assert filled.token_ids == wanted.token_ids[: len(filled.token_ids)]
    assert "".join(chunk.text for chunk in chunks) == filled.text
    status, out, _ = cli("run", path, "--fim", "once upon", " the mat", "--temp", 0, "-n", 8, "--ctx", 64)
    assert (status, out) == (0, filled.text if filled.text.endswith("\n") else filled.text + "\n")


def test_models_without_marks_are_refused_in_a_sentence(cli, plain_model):
    status, out, error = cli("run", plain_model, "--fim", "a", "b")
    assert (status, out) == (1, "")
    assert error.startswith("error: the model was not trained to fill gaps")
