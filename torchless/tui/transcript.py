"""The parts of a conversation on the screen: questions, answers with their reasoning, and what commands say."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Collapsible, Markdown, Static
from textual.widgets.markdown import MarkdownStream

from torchless.chat.partners import Piece, Report
from torchless.chat.reports import speed
from torchless.cli.terminal import counted, printable

__all__ = ["AnswerView", "Notice", "QuestionView", "listing_table"]


class QuestionView(Static):
    """What the user asked, as it was typed."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text), markup=False, classes="question")


class Notice(Static):
    """What a command says, or what a person should know. `kind` is note, command, output, warning or error."""

    def __init__(self, content: str | Table, kind: str) -> None:
        shown = Text(printable(content)) if isinstance(content, str) else content
        super().__init__(shown, markup=False, classes=f"notice {kind}")


class AnswerView(Vertical):
    """An answer: its reasoning, which can be folded, its text as markdown, and a line about it.

    Args:
        is_reasoning_shown: whether the reasoning begins unfolded.
    """

    def __init__(self, *, is_reasoning_shown: bool) -> None:
        super().__init__(classes="answer")
        self._body = Markdown(open_links=False, classes="body")
        self._reasoning_text = Static(markup=False, classes="reasoning-text")
        self._fold = Collapsible(
            self._reasoning_text, title="Thinking ...", collapsed=not is_reasoning_shown, classes="reasoning"
        )
        self._fold.display = False
        self._about = Static(markup=False, classes="about")
        self._about.display = False
        self._reasoning: list[str] = []
        self._stream: MarkdownStream | None = None
        self._reasoning_began_at = 0.0

    def compose(self) -> ComposeResult:
        yield self._fold
        yield self._body
        yield self._about

    async def add(self, pieces: Iterable[Piece]) -> None:
        """Appends pieces of the answer."""
        reasoning = "".join(piece.text for piece in pieces if piece.is_reasoning)
        text = "".join(piece.text for piece in pieces if not piece.is_reasoning)
        if reasoning:
            if not self._reasoning:
                self._fold.display = True
                self._reasoning_began_at = time.monotonic()
            self._reasoning.append(printable(reasoning))
            self._reasoning_text.update(Text("".join(self._reasoning).strip("\n")))
        if text:
            if self._stream is None:
                self._end_reasoning()
                self._stream = Markdown.get_stream(self._body)
            await self._stream.write(printable(text))

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come."""
        return self._stream is None and not self._reasoning

    async def finish(self, report: Report | None) -> None:
        """The answer has ended."""
        if self._stream is None:
            self._end_reasoning()
        else:
            await self._stream.stop()
        if report is not None:
            self._tell(_about(report))

    async def show_whole(self, message: dict[str, Any]) -> None:
        """Shows an answer of before."""
        reasoning = message.get("reasoning_content")
        if reasoning:
            self._fold.title = "Thoughts"
            self._fold.display = True
            self._reasoning_text.update(Text(printable(reasoning).strip("\n")))
        await self._body.update(printable(message["content"]))
        statistics = message.get("statistics")
        if isinstance(statistics, dict):
            with suppress(TypeError, ValueError):  # of another version of torchless, or made by hand
                self._tell(_about(Report(**statistics)))

    def fold_reasoning(self, is_folded: bool) -> None:
        """Folds or unfolds the reasoning."""
        self._fold.collapsed = is_folded

    def _end_reasoning(self) -> None:
        if self._reasoning:
            self._fold.title = f"Thought for {time.monotonic() - self._reasoning_began_at:.1f} s"

    def _tell(self, text: str) -> None:
        self._about.update(Text(text))
        self._about.display = True


def _about(report: Report) -> str:
    parts = []
    if report.num_completion_tokens is not None:
        parts.append(counted(report.num_completion_tokens, "token"))
    parts.append(speed(report))
    parts.append(f"first token {report.first_token_ms:.0f} ms")
    if report.num_cached_tokens:
        parts.append(f"{report.num_cached_tokens} tokens cached")
    parts.append({"stop": "", "cancelled": "stopped"}.get(report.finish_reason, report.finish_reason))
    return " · ".join(part for part in parts if part)


def listing_table(title: str, items: Iterable[tuple[str, str]]) -> Table:
    """Names and values as a table; those without a value are left out."""
    table = Table(
        title=Text(title, style="bold"), title_justify="left", box=None, show_header=False, padding=(0, 1)
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in items:
        if value != "":
            table.add_row(Text(printable(name)), Text(printable(value)))
    return table
