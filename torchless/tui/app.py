"""The screen of a chat: the conversation, the field below it, and a line about what goes on."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Markdown, Static

from torchless.chat.chat import Chat
from torchless.chat.conversation import Conversation
from torchless.chat.partners import Partner, Report
from torchless.tui.completion_list import CompletionList
from torchless.tui.history import History, history_path
from torchless.tui.prompt import PromptField
from torchless.tui.screen_view import ScreenView
from torchless.tui.status_line import status_text
from torchless.tui.transcript import AnswerView, Notice, QuestionView
from torchless.tui.warnings_shown import warnings_on_screen

__all__ = ["ChatApp", "run_chat_screen"]

_PIECES_PER_SECOND = 20
_PATIENCE_SECONDS = 5.0  # for the chat's thread, when the user leaves


def run_chat_screen(
    partner: Partner, conversation: Conversation, *, keeps_history: bool = True, **options: Any
) -> bool:
    """Chats on the whole screen until the user leaves; see `Chat` for the options.

    Returns:
        True: what failed was seen.

    Raises:
        KeyboardInterrupt, Terminated: a signal has ended it.
    """
    app = ChatApp(partner, conversation, History(history_path() if keeps_history else None), **options)
    app.run()
    if app.return_code:
        raise RuntimeError("the screen of the chat broke down; --plain chats without it")
    if app.ended_by == signal.SIGTERM:
        from torchless.cli.failures import Terminated

        raise Terminated
    if app.ended_by == signal.SIGINT:
        raise KeyboardInterrupt
    return True


class ChatApp(App[None]):
    """The screen. A chat runs on a thread of its own while it works on a message.

    Attributes:
        chat: what is said and done.
        load_progress: title, bytes done and bytes of all while a model is loaded (written by the chat's thread).
        ended_by: the signal that has ended it, or None.
        is_leaving: nothing is shown any more.
    """

    CSS_PATH = "chat.tcss"
    TITLE = "torchless"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", priority=False),
        Binding("ctrl+c", "interrupt", "Stop", priority=True),
        Binding("ctrl+d", "leave", "Leave", priority=True),
        Binding("ctrl+q", "leave", "Leave", priority=True, show=False),
        Binding("ctrl+t", "toggle_thinking", "Thinking", priority=True),
        Binding("f1", "help", "Help", priority=True),
        Binding("pageup", "scroll(-1)", "Back", priority=True, show=False),
        Binding("pagedown", "scroll(1)", "Forward", priority=True, show=False),
    ]

    def __init__(
        self, partner: Partner, conversation: Conversation, history: History, **options: Any
    ) -> None:
        super().__init__()
        self._view = ScreenView(self)
        self.chat = Chat(partner, conversation, self._view, **options)
        self.load_progress: tuple[str, int, int] | None = None
        self.ended_by: int | None = None
        self.is_leaving = False
        self._history = history
        self._worker: threading.Thread | None = None
        self._is_working = False
        self._answer: AnswerView | None = None
        self._began_at = 0.0
        self._while_shown = ExitStack()

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield VerticalScroll(id="transcript")
        field = PromptField(self._history)
        yield CompletionList(field, self.chat)
        yield field
        yield Static(id="status", markup=False)

    async def on_mount(self) -> None:
        """Shows who answers, and begins to listen to signals and to the chat."""
        self.query_one("#transcript", VerticalScroll).anchor()
        self.query_one(PromptField).focus()
        self._listen_to_signals()
        self._while_shown.enter_context(warnings_on_screen(self))
        self.set_interval(1 / _PIECES_PER_SECOND, self._take_news)
        self._show_state()
        await self.add_part(
            Notice("Enter sends, Shift+Enter or Ctrl+J begins a line, F1 lists the commands.", "note")
        )
        if self._history.failure is not None:
            await self.add_part(Notice(f"What is typed is not kept: {self._history.failure}.", "warning"))

    def on_resize(self) -> None:
        """The line at the bottom fits the width."""
        self.call_after_refresh(self._show_status)

    # -- what the chat's view asks for ------------------------------------------------------------

    async def add_part(self, part: Widget) -> None:
        """Appends something to the transcript."""
        await self.query_one("#transcript").mount(part)

    async def begin_answer(self) -> None:
        """Makes room for an answer."""
        self._began_at = time.monotonic()
        self._answer = AnswerView(is_reasoning_shown=self.chat.shows_reasoning)
        await self.add_part(self._answer)

    async def end_answer(self, report: Report | None) -> None:
        """Shows what is left of an answer, and what is known of it."""
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.add(self._view.take_pieces())
            await answer.finish(report)
            if answer.is_empty:
                await answer.remove()

    async def show_conversation(self, messages: list[dict[str, Any]]) -> None:
        """Shows another conversation in place of this one."""
        transcript = self.query_one("#transcript")
        await transcript.remove_children()
        for message in messages:
            if message["role"] == "assistant":
                answer = AnswerView(is_reasoning_shown=self.chat.shows_reasoning)
                await transcript.mount(answer)
                await answer.show_whole(message)
            else:
                await transcript.mount(QuestionView(message.get("typed") or message["content"]))

    # -- messages ---------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether the chat works on a message."""
        return self._is_working

    @on(PromptField.Submitted)
    async def take(self, event: PromptField.Submitted) -> None:
        """Hands a message to the chat's thread."""
        if self.is_busy:
            self.notify("An answer is being written; Esc stops it.", severity="warning")
            return
        self._is_working = True
        self.query_one(PromptField).put("")
        self._history.add(event.text)
        is_command = event.text.startswith("/")
        part = Notice(event.text, "command") if is_command else QuestionView(event.text)
        await self.add_part(part)
        self.query_one("#transcript", VerticalScroll).anchor()
        self._worker = threading.Thread(target=self._work, args=(event.text,), name="chat", daemon=True)
        self._worker.start()

    def _work(self, message: str) -> None:
        """On the chat's thread: one message, and what follows from it."""
        try:
            is_done = self.chat.take(message)
        except BaseException as error:
            self._view.error(
                f"unexpected {type(error).__name__}: {error}. This is a fault of torchless; report it"
            )
            is_done = False
        with suppress(Exception):
            if not self.is_leaving:
                self.call_from_thread(self._worked, message, is_done)

    def _worked(self, message: str, is_done: bool) -> None:
        self._is_working = False
        self._show_state()
        field = self.query_one(PromptField)
        if not is_done and not message.startswith("/") and not field.text:
            field.put(message)  # it was taken back, so that it can be changed
        if self.chat.is_over:
            self._leave()

    @on(PromptField.Changed)
    def _suggest(self) -> None:
        self.query_one(CompletionList).suggest()

    @on(PromptField.CompletionWanted)
    def _complete(self) -> None:
        self.query_one(CompletionList).complete()

    @on(PromptField.Choosing)
    def _choose(self, event: PromptField.Choosing) -> None:
        self.query_one(CompletionList).press(event.key)

    # -- keys -------------------------------------------------------------------------------------

    def action_stop(self) -> None:
        """Escape: stops the answer, or what is being loaded."""
        self.chat.stop()

    def action_interrupt(self) -> None:
        """Ctrl-C: copies what is marked, else stops the answer, else says how to leave."""
        field = self.query_one(PromptField)
        marked = self.screen.get_selected_text() or field.selected_text
        if marked:
            self.copy_to_clipboard(marked)
            self.notify("Copied.", timeout=1)
        elif self.is_busy:
            self.chat.stop()
        elif field.text:
            field.put("")
        else:
            self.notify("Ctrl-D or /exit leaves.", timeout=2)

    def action_leave(self) -> None:
        """Ctrl-D: leaves, unless something is typed."""
        field = self.query_one(PromptField)
        if field.text and not self.is_busy:
            field.action_delete_right()
        else:
            self._leave()

    def action_toggle_thinking(self) -> None:
        """Ctrl-T: folds or unfolds all reasoning."""
        self.chat.shows_reasoning = not self.chat.shows_reasoning
        self._show_state()

    async def action_help(self) -> None:
        """F1: what /help says."""
        if not self.is_busy:
            await self.take(PromptField.Submitted("/help"))

    def action_scroll(self, direction: int) -> None:
        """Page up and page down, wherever the cursor is."""
        transcript = self.query_one("#transcript", VerticalScroll)
        if direction < 0:
            transcript.scroll_page_up()
        else:
            transcript.scroll_page_down()

    @on(Markdown.LinkClicked)
    def _open_link(self, event: Markdown.LinkClicked) -> None:
        """A model's links lead to the web, and nowhere else."""
        if event.href.startswith(("https://", "http://")):
            self.open_url(event.href)
        else:
            self.notify(f"Not opened, since it is no address of the web: {event.href}", severity="warning")

    # -- state ------------------------------------------------------------------------------------

    async def _take_news(self) -> None:
        if self._answer is not None:
            await self._answer.add(self._view.take_pieces())
        if self.is_busy:
            self._show_status()

    def _show_state(self) -> None:
        """Title, folds and the line at the bottom, after a message."""
        self.query_one("#title", Static).update(
            Text.assemble(("torchless", "bold"), "  ", Text(self.chat.partner.name))
        )
        for answer in self.query(AnswerView):
            answer.fold_reasoning(not self.chat.shows_reasoning)
        self._show_status()

    def _show_status(self) -> None:
        seconds = time.monotonic() - self._began_at if self._answer is not None else None
        width = self.query_one("#status").size.width
        self.query_one("#status", Static).update(
            status_text(self.chat, self.load_progress, seconds, width, is_busy=self.is_busy)
        )

    def _leave(self) -> None:
        self.is_leaving = True
        self.chat.stop()
        self.exit()

    async def on_unmount(self) -> None:
        """Waits for the chat's thread, which has been told to stop."""
        self._while_shown.close()
        worker = self._worker
        if worker is not None:
            await asyncio.to_thread(worker.join, _PATIENCE_SECONDS)

    def _listen_to_signals(self) -> None:
        if sys.platform == "win32":  # whose loops know no signals
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError, RuntimeError):  # not the main thread
                loop.add_signal_handler(number, self._end_by, number)

    def _end_by(self, number: int) -> None:
        self.ended_by = number
        self._leave()
