"""`torchless chat` as a process on a terminal: which view it takes, and that it leaves the terminal in order."""

from __future__ import annotations

import signal

import pytest
from cli_processes import Terminal, command

pytest.importorskip("textual", reason="textual is not installed")

READY = "Enter sends"
ALTERNATE_SCREEN, NORMAL_SCREEN = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def chat(chat_model, tmp_path):
    """The command line of a chat, and an environment in which it writes nothing to the user's home."""
    options = ["--backend", "reference", "--seed", "1", "--ignore-eos", "--ctx", "100000"]
    return command("chat", chat_model, *options), {"XDG_STATE_HOME": str(tmp_path)}


def assert_in_order(terminal):
    assert "Traceback" not in terminal.screen
    assert terminal.screen.rindex(NORMAL_SCREEN) > terminal.screen.rindex(ALTERNATE_SCREEN)
    assert terminal.screen.rindex("\x1b[?25h") > terminal.screen.rindex(ALTERNATE_SCREEN)  # the cursor


def test_a_terminal_shows_the_screen_and_remembers_what_was_typed(chat, tmp_path):
    argv, changes = chat
    with Terminal(argv, **changes) as terminal:
        terminal.wait_for(READY)
        terminal.press("the cat\r")
        terminal.wait_for("Esc stops")
        terminal.wait_for("tok/s")
        terminal.press("\x03")  # stops the answer, not the chat
        terminal.wait_for("stopped")
        terminal.press("\x04")
        assert terminal.wait() == 0
        assert_in_order(terminal)
    assert (tmp_path / "torchless" / "chat_history.jsonl").read_text() == '"the cat"\n'


def test_without_history_nothing_is_kept(chat, tmp_path):
    argv, changes = chat
    with Terminal([*argv, "--no-history", "-n", "2"], **changes) as terminal:
        terminal.wait_for(READY)
        terminal.press("the cat\r")
        terminal.wait_for("first token")
        terminal.press("/exit\x1b")
        terminal.press("\r")
        assert terminal.wait() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_signals_leave_the_terminal_in_order(chat, number, status, is_busy):
    argv, changes = chat
    with Terminal(argv, **changes) as terminal:
        terminal.wait_for(READY)
        if is_busy:
            terminal.press("the cat\r")
            terminal.wait_for("Esc stops")
        terminal.process.send_signal(number)
        assert terminal.wait() == status
        assert_in_order(terminal)


def test_a_dumb_terminal_gets_lines(chat):
    argv, changes = chat
    with Terminal(argv, **{**changes, "TERM": "dumb"}) as terminal:
        terminal.wait_for(">>> ")
        terminal.press("/bye\n")
        assert terminal.wait() == 0
        assert ALTERNATE_SCREEN not in terminal.screen


def test_without_textual_there_are_lines_and_a_hint(chat, tmp_path):
    argv, changes = chat
    code = f"""
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "textual" else real(name, *rest)
from torchless.cli import main
sys.exit(main({argv[3:]!r}))
"""
    with Terminal([argv[0], "-c", code], **changes) as terminal:
        terminal.wait_for("'torchless[chat]'")
        terminal.wait_for(">>> ")
        terminal.press("/bye\n")
        assert terminal.wait() == 0
