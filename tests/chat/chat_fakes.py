"""A view that notes what it is told."""

from __future__ import annotations

from contextlib import contextmanager


class RecordingView:
    """Follows `torchless.chat.view.View`; `said` has (kind, text) in order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.pieces: list[tuple[str, bool]] = []
        self.num_restarts = 0
        self.reports: list[object] = []

    def texts(self, kind: str) -> list[str]:
        return [text for said, text in self.said if said == kind]

    def show(self, text):
        self.said.append(("show", text))

    def listing(self, title, items):
        self.said.append(("listing", "\n".join(f"{name}: {value}" for name, value in items)))

    def note(self, text):
        self.said.append(("note", text))

    def warn(self, text):
        self.said.append(("warn", text))

    def error(self, text):
        self.said.append(("error", text))

    def begin_answer(self):
        self.pieces.append(("BEGIN", False))

    def piece(self, piece):
        self.pieces.append(tuple(piece))

    def end_answer(self, report):
        self.reports.append(report)

    def interrupted(self):
        return True

    @contextmanager
    def loading(self, title):
        yield lambda done, total: None

    def restarted(self, chat):
        self.num_restarts += 1
