"""The command line: `main` is the entry point. Verbs are the files of `verbs/`, found by name.

What happens when you run ``torchless run model.gguf "Once"``: `main` sets up signals and streams, `program`
finds the verb's file and parses its options, the verb works, and `failures` turns whatever went wrong into
one sentence and an exit status. Heavy imports happen inside the verbs, after their options are known to be
good, so that ``torchless --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the process's exit status.

    0 is success, 1 an error, 2 a wrong use of the command line, 130 Ctrl-C, 141 a reader of our output that
    went away, 143 SIGTERM.

    Args:
        arguments: words of the command line without the program's name; by default the process's own.
    """
    try:
        with _ended_by_interrupt(arguments is None):
            from torchless.cli.failures import guarded
            from torchless.cli.program import run_program

        status = guarded(lambda: run_program(sys.argv[1:] if arguments is None else list(arguments)))
    except KeyboardInterrupt:  # Ctrl-C between these lines
        status = 130
    if status > 128 and arguments is None:
        os._exit(status)  # a signal ended us: all is flushed, and taking everything down could take long
    return status


@contextmanager
def _ended_by_interrupt(is_process: bool) -> Iterator[None]:
    """Inside, Ctrl-C ends the process without a word: Python would raise KeyboardInterrupt in whatever it is doing, and
    where that is a callback of its imports the exception is printed and forgotten, and the command runs on."""
    if not is_process or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
