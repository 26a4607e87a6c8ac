"""How the command line ends: every failure becomes one sentence on stderr and an exit status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from torchless.cli.terminal import print_error
from torchless.errors import TorchlessError

__all__ = ["Terminated", "guarded"]

ERROR, USAGE = 1, 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
BROKEN_PIPE = 141  # 128 + SIGPIPE, a signal that Windows lacks


class Terminated(BaseException):
    """SIGTERM, raised like KeyboardInterrupt so that everything open is closed on the way out."""


def guarded(action: Callable[[], int]) -> int:
    """Runs `action` and returns its exit status, or that of its failure. Raises nothing but SystemExit.

    With ``TORCHLESS_DEBUG=1`` the traceback is printed too.
    """
    with _terminated_by_signal():
        try:
            _tolerate_encodings()
            status = action()
            _flush_stdout()
            return status
        except KeyboardInterrupt:
            return _ended(INTERRUPTED)
        except Terminated:
            return _ended(TERMINATED)
        except BrokenPipeError:
            _abandon_stdout()
            return BROKEN_PIPE
        except Exception as error:
            return _report(error)


def _report(error: Exception) -> int:
    """Says what went wrong; returns the exit status."""
    if os.environ.get("TORCHLESS_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    message, status = _sentence(error)
    try:
        sys.stdout.flush()  # so that the sentence stands below the text it ends
    except (OSError, ValueError, AttributeError):
        _abandon_stdout()
    print_error(message)
    return status


def _sentence(error: Exception) -> tuple[str, int]:
    if isinstance(error, click.UsageError):
        context = error.ctx
        hint = f"\nTry '{context.command_path} --help'." if context is not None else ""
        return error.format_message() + hint, USAGE
    if isinstance(error, click.ClickException):
        return error.format_message(), error.exit_code
    if isinstance(error, TorchlessError):
        return str(error), ERROR
    if isinstance(error, OSError) and error.strerror:
        where = "writing the output" if error.filename is None else error.filename
        return f"{where}: {error.strerror}", ERROR
    if isinstance(error, MemoryError):
        return "memory ran out; try a smaller context (--ctx) or a smaller model", ERROR
    if isinstance(error, ImportError):
        return f"torchless is not installed completely: {error}; install it again", ERROR
    name = type(error).__name__
    return (
        f"unexpected {name}: {error}. This is a fault of torchless; run the command again with "
        f"TORCHLESS_DEBUG=1 to see where it happened, and report it"
    ), ERROR


def _ended(status: int) -> int:
    """The status of a run ended by a signal; a second Ctrl-C shall not disturb what is left to do."""
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _flush_stdout()
    except OSError:
        _abandon_stdout()
    return status


@contextmanager
def _terminated_by_signal() -> Iterator[None]:
    """Turns SIGTERM into `Terminated`, unless it is ignored or somebody else's."""
    try:
        before = signal.getsignal(signal.SIGTERM)
        if before is not signal.SIG_DFL:
            yield
            return
        signal.signal(signal.SIGTERM, _raise_terminated)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _tolerate_encodings() -> None:
    """A character that the terminal's encoding lacks becomes a question mark, never an exception."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def _flush_stdout() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _abandon_stdout() -> None:
    """Points stdout at nothing: what is still buffered would fail again when the interpreter exits."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError, AttributeError):
        pass
