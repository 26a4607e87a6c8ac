"""Loading a model for a verb: a bar on the terminal when it takes long, and the library's log as sentences."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torchless.cli.sampling_options import named_by_flags
from torchless.cli.terminal import is_terminal, note, print_warning, remark, terminal_width

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from torchless.llm import LLM

__all__ = ["LoadProgress", "load_for_verb", "show_log"]

PATIENCE_SECONDS = 1.0
"""How long loading may take before a person is told about it."""


def load_for_verb(model: str | None, keywords: dict[str, Any], progress: LoadProgress) -> LLM:
    """`torchless.load` with `progress`, warnings on stderr, and a note where the built-in model is used."""
    import torchless

    show_log()
    if model is None:
        note("Using the built-in model, a small writer of stories; name a file to use another.")
    with progress, named_by_flags():
        llm = torchless.load(model, progress=progress, **keywords)
    if llm.file_speed is not None:
        remark(str(llm.file_speed))
    return llm


class LoadProgress:
    """A bar on stderr, if that is a terminal, once loading has taken `PATIENCE_SECONDS`.

    Pass it as `progress` to `torchless.load`.
    """

    def __init__(self, model: str | None, title: str = "Loading") -> None:
        self._title = f"{title} " + (Path(model).name if model is not None else "the built-in model")
        self._lock = threading.Lock()  # between the loading thread and the timer's
        self._timer: threading.Timer | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._counts: tuple[int, int | None] = (0, None)
        self._has_ended = False

    def __enter__(self) -> LoadProgress:
        if is_terminal(sys.stderr):
            self._timer = threading.Timer(PATIENCE_SECONDS, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        self._counts = (done_bytes, total_bytes)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done_bytes, total=total_bytes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._has_ended = True
            if self._bar is not None:
                self._bar.stop()

    def abandon(self) -> None:
        """Gives the terminal back without waiting for anybody: for a process that is about to end.

        What came of a download that nobody can go on with is deleted.
        """
        download = sys.modules.get("torchless.hub.download")  # an import could wait for the main thread's
        if download is not None:
            download.discard_parts()
        if self._bar is not None and not self._has_ended:
            os.write(sys.stderr.fileno(), b"\r\x1b[2K\x1b[?25h")  # erase the bar, show the cursor

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        room = max(20, terminal_width(sys.stderr) - 3)  # for the ^C that the terminal echoes on this line
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(),
            console=Console(stderr=True, width=room),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with self._lock:
            if self._has_ended:
                return
            done, total = self._counts
            self._task = bar.add_task(self._title, completed=done, total=total)
            bar.start()
            self._bar = bar


class _LogPrinter(logging.Handler):
    """Prints what the library warns of; the rest of its log is told to a person at the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            print_warning(record.getMessage())
        elif record.name == "torchless":
            note(record.getMessage())


def show_log() -> None:
    """Prints the library's log on stderr, from now on: how a checkpoint is read, and what is warned of."""
    logger = logging.getLogger("torchless")
    if not any(isinstance(handler, _LogPrinter) for handler in logger.handlers):
        logger.addHandler(_LogPrinter(logging.INFO))
        logger.setLevel(logging.INFO)
        logger.propagate = False
