"""Where a prompt comes from, which word is the model, and what happens to bytes that are no text."""

from __future__ import annotations

import click
import pytest

from torchless.cli.prompt import looks_like_path, read_text_file, split_words
from torchless.errors import InvalidRequestError


@pytest.mark.parametrize(
    "word",
    ["model.gguf", "MODEL.GGUF", "my model.gguf", "a/b", "./x", "../x", "/abs", "x.safetensors", "~/m"],
)
def test_paths_are_seen(word):
    assert looks_like_path(word)


@pytest.mark.parametrize(
    "word", ["Once upon a time", "hello", "this and/or that, please", "What is 1/2 of 3?", "a\nb/c.gguf", ""]
)
def test_prompts_are_seen(word):
    assert not looks_like_path(word)


def test_a_name_with_spaces_in_an_existing_folder_is_a_path(tmp_path):
    assert looks_like_path(str(tmp_path / "my missing model"))
    assert not looks_like_path(str(tmp_path / "no such folder" / "my missing model"))


def test_words_are_split(tmp_path):
    model = tmp_path / "existing"
    model.write_bytes(b"")
    name = str(model)
    assert split_words([name, "Hi"], None, text_given=False) == (name, "Hi")
    assert split_words([name, "Once", "upon"], None, text_given=False) == (name, "Once upon")
    assert split_words([name], None, text_given=False) == (name, None)
    assert split_words(["Hi there"], None, text_given=False) == (None, "Hi there")
    assert split_words([""], None, text_given=False) == (None, "")
    assert split_words(["missing.gguf"], None, text_given=False) == ("missing.gguf", None)
    assert split_words(["missing", "Hi"], None, text_given=False) == ("missing", "Hi")
    assert split_words(["missing"], None, text_given=True) == ("missing", None)
    assert split_words(["Hi", "there"], "m", text_given=False) == ("m", "Hi there")
    assert split_words([], None, text_given=False) == (None, None)
    with pytest.raises(click.UsageError, match="prompt was given twice"):
        split_words(["Hi"], "m", text_given=True)


def prompt_of(cli, fake_llm, *arguments, stdin=b""):
    llm = fake_llm()
    status, _, err = cli("run", *arguments, stdin=stdin)
    assert status == 0, err
    return llm.requests[0][1]


@pytest.mark.parametrize(
    ("arguments", "stdin", "prompt"),
    [
        (["Tell me"], b"", "Tell me"),
        (["-p", "Tell me"], b"", "Tell me"),
        (["--prompt", "Tell me"], b"", "Tell me"),
        (["Tell me"], b"more\n", "Tell me\n\nmore"),
        ([], b"all of it\n", "all of it"),
        ([], b"two\nlines\n\n", "two\nlines\n"),
        ([], b"windows\r\n", "windows"),
        ([], b"\xef\xbb\xbfmarked\n", "marked"),
        ([], "größer 🙂".encode(), "größer 🙂"),
        ([], b"", ""),
        (["-f", "-"], b"from stdin", "from stdin"),
    ],
)
def test_prompt_of_arguments_and_stdin(cli, fake_llm, arguments, stdin, prompt):
    assert prompt_of(cli, fake_llm, *arguments, stdin=stdin) == prompt


def test_prompt_of_a_file(cli, fake_llm, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("From a file\n")
    assert prompt_of(cli, fake_llm, "-f", file) == "From a file"
    assert prompt_of(cli, fake_llm, "--file", file, stdin=b"and a pipe") == "From a file\n\nand a pipe"


def test_broken_utf8_on_stdin_is_refused_with_its_offset(cli, fake_llm):
    llm = fake_llm()
    status, out, err = cli("run", stdin="größe ".encode() + b"\xff end")
    assert (status, out) == (1, "")
    assert "standard input is not valid UTF-8: byte 0xff at offset 8" in err
    assert not llm.requests


def test_a_character_cut_short_is_refused_too(cli, fake_llm):
    fake_llm()
    assert "byte 0xe2 at offset 3" in cli("run", stdin=b"abc\xe2\x82")[2]


def test_broken_utf8_in_a_file_or_argument_is_refused(cli, fake_llm, tmp_path):
    file = tmp_path / "latin1.txt"
    file.write_bytes("größe".encode("latin-1"))
    with pytest.raises(InvalidRequestError, match=r"latin1.txt is not valid UTF-8: byte 0xf6 at offset 2"):
        read_text_file(str(file))
    fake_llm()
    assert "the prompt is not valid UTF-8: byte 0xff at offset 1" in cli("run", "a\udcffb")[2]


def test_a_missing_prompt_file_is_named(cli, fake_llm):
    fake_llm()
    status, _, err = cli("run", "-f", "nosuch.txt")
    assert status == 1 and err.startswith("error: nosuch.txt: No such file or directory")


def test_two_prompts_are_one_too_many(cli, fake_llm):
    fake_llm()
    assert cli("run", "-p", "a", "-f", "b")[0] == 2
    assert cli("run", "-m", "m.gguf", "a", "-p", "b")[0] == 2
