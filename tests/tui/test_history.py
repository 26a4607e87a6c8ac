"""What was typed, for the arrow keys, in a file that only the user can read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from torchless.tui.history import MAX_ENTRIES, History, history_path


def recalled(history: History) -> list[str]:
    entries = []
    while (entry := history.back("")) is not None:
        entries.append(entry)
    return entries[::-1]


def test_later_chats_know_what_was_typed(tmp_path):
    path = tmp_path / "state" / "history.jsonl"
    first = History(path)
    for text in ("one", "several\nlines", "several\nlines", "ü \ud800"):
        first.add(text)
    assert recalled(History(path)) == ["one", "several\nlines", "ü \ud800"]
    assert path.stat().st_mode & 0o777 == 0o600 or sys.platform == "win32"


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = History(None)
    history.add("one")
    assert recalled(history) == ["one"] and list(tmp_path.iterdir()) == []


def test_half_written_and_foreign_lines_are_passed_over(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'"one"\n5\n"tw\n\xff\n"three"\n')
    assert recalled(History(path)) == ["one", "three"]


def test_a_long_file_is_shortened(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(str(i)) + "\n" for i in range(3 * MAX_ENTRIES)))
    assert recalled(History(path))[0] == str(2 * MAX_ENTRIES)
    assert len(path.read_text().splitlines()) == MAX_ENTRIES
    assert [item.name for item in tmp_path.iterdir()] == ["history.jsonl"]


def test_a_file_that_cannot_be_used_is_told_and_the_chat_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    history = History(tmp_path / "file" / "history.jsonl")
    history.add("one")
    assert history.failure is not None and recalled(history) == ["one"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [("/var/state", Path("/var/state/torchless/chat_history.jsonl")), ("relative", None), (None, None)],
)
def test_where_it_lies(monkeypatch, tmp_path, state, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    if state is None:
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_STATE_HOME", state)
    assert history_path() == (expected or tmp_path / ".local" / "state" / "torchless" / "chat_history.jsonl")
