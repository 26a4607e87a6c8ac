"""Runs ``python -m torchless`` as a process, with pipes or on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with the tree on the path and without what would change outputs."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHLESS_", "NO_COLOR"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "", "TERM": "xterm", **changes}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "torchless", *map(str, arguments)]


def torchless(*arguments: object, stdin: bytes = b"", timeout: float = 60, **changes: str) -> Ended:
    """Runs to the end, with `stdin` piped in."""
    done = subprocess.run(
        command(*arguments), input=stdin, capture_output=True, timeout=timeout, env=environment(**changes)
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


class Terminal:
    """A process on a pseudo-terminal: what it shows is in `screen`, keys go in by `press`."""

    def __init__(self, argv: list[str], *, num_columns: int = 80, **changes: str) -> None:
        import fcntl
        import pty
        import termios

        self._keyboard, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, num_columns, 0, 0))
        self.process = subprocess.Popen(
            argv,
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment(**changes),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(side)
        self._bytes = b""

    @property
    def screen(self) -> str:
        return self._bytes.decode(errors="replace").replace("\r\n", "\n")

    def press(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def press_until(self, keys: str, text: str, num_times: int = 10) -> None:
        """Presses `keys`, again after a while, until `text` was shown."""
        for _ in range(num_times):
            self.press(keys)
            with contextlib.suppress(AssertionError):
                self.wait_for(text, timeout=3)
                return
        raise AssertionError(f"{text!r} did not come; the screen has {self.screen!r}")

    def wait_for(self, text: str, timeout: float = 30) -> str:
        """Reads until `text` was shown; returns all of the screen."""
        self._read_until(lambda: text in self.screen, text, timeout)
        return self.screen

    def wait_for_end(self, text: str, timeout: float = 30) -> None:
        """Reads until the screen ends with `text`, such as the chat's prompt."""
        self._read_until(lambda: self.screen.endswith(text), f"{text} at the end", timeout)

    def wait_for_more_than(self, text: str, timeout: float = 30) -> None:
        """Reads until something visible has followed `text`."""
        follows = re.compile(re.escape(text) + r"(\x1b\[[0-9;?]*[a-zA-Z]|\s)*[^\s\x1b]")
        self._read_until(lambda: bool(follows.search(self.screen)), f"text after {text}", timeout)

    def _read_until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what!r} did not come; the screen has {self.screen!r}"
            assert self._read(0.1) or self.process.poll() is None, f"ended without {what!r}: {self.screen!r}"

    def wait(self, timeout: float = 30) -> int:
        """Reads until the process ends; returns its exit status."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            self._read(0.05)
            if time.monotonic() > deadline:
                self.process.send_signal(signal.SIGKILL)
                raise AssertionError(f"still running; the screen has {self.screen!r}")
        while self._read(0.05):
            pass
        return self.process.returncode

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *details: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._keyboard)

    def _read(self, timeout: float) -> bool:
        """Takes what is there; False at the end or when nothing came."""
        if not select.select([self._keyboard], [], [], timeout)[0]:
            return False
        try:
            piece = os.read(self._keyboard, 65536)
        except OSError:  # Linux says so when the other side is closed
            return False
        self._bytes += piece
        return bool(piece)
