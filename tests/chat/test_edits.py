"""Changes to files that answers propose."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from torchless.chat.edits import Edit, PendingEdits, find_edits
from torchless.errors import InvalidRequestError

ANSWER = """I make it add.

src/main.py
```python
<<<<<<< SEARCH
def f(a, b):
    return a
=======
def f(a, b):
    return a + b
>>>>>>> REPLACE
<<<<<<< SEARCH
print(f(1, 2))
=======
print(f(2, 3))
>>>>>>> REPLACE
```

And a test:

**`tests/test_main.py`**
<<<<<<< SEARCH
=======
assert f(1, 2) == 3
>>>>>>> REPLACE
"""
BEFORE = "def f(a, b):\n    return a\n\nprint(f(1, 2))\n"
AFTER = "def f(a, b):\n    return a + b\n\nprint(f(2, 3))\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text(BEFORE)
    return tmp_path


def test_blocks_are_found_with_their_files():
    edits, problems = find_edits(ANSWER)
    assert problems == []
    assert [edit.path for edit in edits] == ["src/main.py", "src/main.py", "tests/test_main.py"]
    assert edits[1] == Edit("src/main.py", "print(f(1, 2))\n", "print(f(2, 3))\n")
    assert edits[2].search == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a.py\n<<<<<<< SEARCH\nx\n", "(line 2) lacks its line '======='"),
        ("a.py\n<<<<<<< SEARCH\nx\n=======\ny\n", "(line 2) lacks its line '>>>>>>> REPLACE'"),
        ("<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n", "(line 1) names no file"),
        ("This is the change:\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n", "names no file"),
    ],
)
def test_broken_blocks_are_told(text, problem):
    edits, problems = find_edits(text)
    assert edits == [] and len(problems) == 1 and problem in problems[0]


def test_text_without_blocks_has_none():
    assert find_edits("a < b\n=======\nA heading\n") == ([], [])


def test_changes_are_shown_and_written_as_a_whole(folder):
    (folder / "src" / "main.py").chmod(0o755)
    pending = PendingEdits(folder)
    assert pending.stage(find_edits(ANSWER)[0]) == []
    diff = pending.diff()
    assert "-    return a\n+    return a + b\n" in diff and "--- /dev/null\n+++ b/tests/test_main.py" in diff
    assert (folder / "src" / "main.py").read_text() == BEFORE  # not before the word is given
    assert pending.apply() == ["src/main.py", "tests/test_main.py"]
    assert (folder / "src" / "main.py").read_text() == AFTER
    assert (folder / "src" / "main.py").stat().st_mode & 0o777 == 0o755
    assert (folder / "tests" / "test_main.py").read_text() == "assert f(1, 2) == 3\n"
    assert not pending
    assert sorted(path.name for path in folder.rglob("*.py")) == ["main.py", "test_main.py"]


def test_git_takes_the_diff(folder):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (folder / "end.txt").write_text("no line end")
    pending = PendingEdits(folder)
    edits = [*find_edits(ANSWER)[0], Edit("end.txt", "no line end\n", "none still\n")]
    assert pending.stage(edits) == []
    subprocess.run(["git", "apply", "-"], input=pending.diff().encode(), cwd=folder, check=True)
    assert (folder / "src" / "main.py").read_text() == AFTER
    assert (folder / "end.txt").read_text() == "none still"


def test_discarding_forgets(folder):
    pending = PendingEdits(folder)
    pending.stage(find_edits(ANSWER)[0])
    assert pending.discard() == ["src/main.py", "tests/test_main.py"]
    assert not pending and pending.diff() == ""


def test_later_changes_build_on_those_that_wait(folder):
    pending = PendingEdits(folder)
    assert pending.stage([Edit("src/main.py", "    return a\n", "    return b\n")]) == []
    assert pending.stage([Edit("src/main.py", "    return b\n", "    return a\n")]) == []
    assert not pending  # back where it was


def test_line_ends_of_the_file_stay(tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"one\r\ntwo\r\n")
    pending = PendingEdits(tmp_path)
    assert pending.stage([Edit("dos.txt", "two\n", "2\n3\n")]) == []
    pending.apply()
    assert (tmp_path / "dos.txt").read_bytes() == b"one\r\n2\r\n3\r\n"


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (Edit("src/main.py", "return a\n", "x\n"), "no lines like those that begin 'return a'"),
        (Edit("src/nosuch.py", "x\n", "y\n"), "no such file, but the answer changes it"),
        (Edit("src/main.py", "", "y\n"), "is there already, but the answer makes it anew"),
        (Edit("twice.txt", "same\n", "x\n"), "2 times, so their place is not clear"),
        (Edit("../outside.txt", "", "x\n"), "is outside of"),
        (Edit("/etc/passwd", "", "x\n"), "is outside of"),
        (Edit("link/file.txt", "", "x\n"), "is outside of"),
        (Edit(".git/hooks/pre-commit", "", "x\n"), "belongs to git"),
        (Edit("binary.bin", "x\n", "y\n"), "is not UTF-8 text"),
        (Edit("a\0b", "", "y\n"), "is not the path of a file"),
    ],
)
def test_changes_that_do_not_fit_are_refused(folder, tmp_path_factory, edit, problem):
    (folder / "twice.txt").write_text("same\nother\nsame\n")
    (folder / "binary.bin").write_bytes(b"\xff\n")
    (folder / "link").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    pending = PendingEdits(folder)
    (found,) = pending.stage([edit])
    assert problem in found and found.endswith("not taken")
    assert not pending


def test_nothing_is_written_over_a_file_that_has_changed_meanwhile(folder):
    pending = PendingEdits(folder)
    pending.stage(find_edits(ANSWER)[0])
    (folder / "src" / "main.py").write_text("someone else's\n")
    with pytest.raises(InvalidRequestError, match=r"src/main.py has changed since the answer; nothing was"):
        pending.apply()
    assert (folder / "src" / "main.py").read_text() == "someone else's\n"
    assert not (folder / "tests").exists()
    assert pending  # the user may still look at it
