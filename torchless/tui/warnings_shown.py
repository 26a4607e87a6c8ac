"""What the library warns of, as notices on the screen: stderr is not seen while the screen is taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torchless.tui.transcript import Notice

if TYPE_CHECKING:
    from torchless.tui.app import ChatApp

__all__ = ["warnings_on_screen"]


class _Notices(logging.Handler):
    """Appends a notice for each record; from any thread, without waiting."""

    def __init__(self, app: ChatApp) -> None:
        super().__init__(logging.WARNING)
        self._app = app

    def emit(self, record: logging.LogRecord) -> None:
        self._app.call_later(self._app.add_part, Notice(record.getMessage(), "warning"))


@contextmanager
def warnings_on_screen(app: ChatApp) -> Iterator[None]:
    """Inside, the library's warnings go to the screen, and nowhere else."""
    logger = logging.getLogger("torchless")
    others, propagates = list(logger.handlers), logger.propagate
    logger.handlers[:] = [_Notices(app)]
    logger.propagate = False
    try:
        yield
    finally:
        logger.handlers[:] = others
        logger.propagate = propagates
