"""Files in questions."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from torchless.chat.references import with_files
from torchless.errors import InvalidRequestError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text("a = 1\nb = 2\nc = 3\n")
    (tmp_path / "notes.txt").write_text("Remember ``` the milk.\n")
    return tmp_path


def test_a_file_follows_the_question(folder):
    text, notes = with_files("What is in @src/main.py?", folder)
    assert text == "What is in @src/main.py?\n\nsrc/main.py:\n```py\na = 1\nb = 2\nc = 3\n```"
    assert notes == ["Sent with it: src/main.py."]


def test_lines_of_a_file(folder):
    text, notes = with_files("@src/main.py:2-3 and @src/main.py:1", folder)
    assert "src/main.py, lines 2-3:\n```py\nb = 2\nc = 3\n```" in text
    assert "src/main.py, line 1:\n```py\na = 1\n```" in text
    assert notes == ["Sent with it: src/main.py, lines 2-3.", "Sent with it: src/main.py, line 1."]


def test_fences_are_longer_than_those_in_the_file(folder):
    text, _ = with_files("@notes.txt", folder)
    assert "````txt\nRemember ``` the milk.\n````" in text


def test_a_file_named_twice_is_sent_once(folder):
    text, _ = with_files("@notes.txt and again @notes.txt.", folder)
    assert text.count("milk") == 1


@pytest.mark.parametrize("text", ["write to me@example.com", "use @property here", "@ nothing", "hello"])
def test_words_stay_words(folder, text):
    assert with_files(text, folder) == (text, [])


def test_what_looks_like_a_file_but_is_none_is_told(folder):
    text, notes = with_files("see @nosuch.py please", folder)
    assert text == "see @nosuch.py please"
    assert notes == ["@nosuch.py names no file and was sent as it is."]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("@src", "is a folder"),
        ("@src/main.py:2-9", "the file has lines 1 to 3"),
        ("@src/main.py:3-2", "the file has lines 1 to 3"),
        ("@src/main.py:0", "the file has lines 1 to 3"),
        ("@binary.bin", "is not text: byte 0xff at offset 2"),
        ("@large.txt", "bytes, more than the 1048576"),
    ],
)
def test_what_cannot_be_sent_is_refused(folder, question, message):
    (folder / "binary.bin").write_bytes(b"ab\xff")
    (folder / "large.txt").write_bytes(b"x" * (1 << 20) + b"\n")
    with pytest.raises(InvalidRequestError, match=r"@\w+") as caught:
        with_files(question, folder)
    assert message in str(caught.value)


def test_what_git_ignores_is_sent_only_if_that_is_meant(folder):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("secrets.txt\n")
    (folder / "secrets.txt").write_text("hunter2\n")
    with pytest.raises(InvalidRequestError, match=r"@secrets.txt is ignored by git; @!secrets.txt sends it"):
        with_files("@secrets.txt", folder)
    assert "hunter2" in with_files("@!secrets.txt", folder)[0]
    assert "a = 1" in with_files("@src/main.py", folder)[0]
