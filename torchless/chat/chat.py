"""A chat: takes what is typed, asks the partner, keeps the conversation, and tells a view what happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchless.chat.context_shift import answer_room, fitting, without_oldest
from torchless.chat.conversation import Conversation
from torchless.chat.edits import PendingEdits, edit_instructions, find_edits
from torchless.chat.partners import Answer, Partner, Question, Report
from torchless.chat.references import with_files
from torchless.chat.view import View
from torchless.errors import ContextLengthError, TorchlessError

__all__ = ["Chat"]


class Chat:
    """One chat with one partner, shown by one view.

    All methods but `stop` belong to one thread at a time.

    Attributes:
        partner: who answers.
        conversation: everything said so far; sent again with every question.
        view: who shows it.
        chosen: names of the sampling parameters that the user set.
        constraint: the keyword that says what every answer must match, or empty.
        num_context_tokens: tokens that the conversation takes, as far as known (see `context_tokens`).
        is_over: the user wants to leave.
        thinking: how much to think, or None for what the model does by itself.
        shows_reasoning, is_debugging, is_coding: what /thinking, /debug and /code switch.
        edits: changes to files that answers have proposed.
        shifts_context: the oldest messages are left out once the conversation does not fit the context.
    """

    def __init__(
        self,
        partner: Partner,
        conversation: Conversation,
        view: View,
        *,
        constraint: Mapping[str, Any] | None = None,
        chosen: Iterable[str] = (),
        shows_reasoning: bool = True,
        thinking: str | None = None,
        folder: Path | None = None,
        shifts_context: bool = False,
    ) -> None:
        """Sets a chat up; `folder` is where relative names of files begin, by default the current one.

        Raises:
            TorchlessError: the partner cannot be asked to think so much.
        """
        if thinking is not None:
            partner.check_thinking(thinking)
        self.thinking = thinking
        self.partner = partner
        self.conversation = conversation
        self.view = view
        self.constraint = dict(constraint or {})
        self.chosen = set(chosen)
        self.folder = Path.cwd() if folder is None else folder
        self.num_context_tokens: int | None = 0
        self.is_over = False
        self.shows_reasoning = shows_reasoning
        self.is_debugging = False
        self.is_coding = False
        self.shifts_context = shifts_context
        self.edits = PendingEdits(self.folder)
        self._running: Answer | None = None
        self._is_stopped = False  # written by any thread

    def take(self, message: str) -> bool:
        """One message: a command, a question, or nothing. False if it failed, which the view was told."""
        self._is_stopped = False
        try:
            if message.startswith("/"):
                from torchless.chat.commands import run_command

                run_command(self, message)
            elif message.strip():
                self.ask(message)
        except TorchlessError as error:
            self.view.error(str(error))
            return False
        return True

    def ask(self, question: str) -> None:
        """Adds a question, with the files that it names, and answers it.

        One that fails is taken back, so that another can be asked.

        Raises:
            InvalidRequestError: a file that it names cannot be sent.
            TorchlessError, KeyboardInterrupt: as in `answer`.
        """
        content, notes = with_files(question, self.folder)
        for note in notes:
            self.view.note(note)
        self.conversation.add("user", content)
        try:
            self.answer()
        except BaseException:
            self.conversation.messages.pop()
            raise

    def answer(self) -> None:
        """Writes an answer to the last question and adds it. One that is stopped is kept as far as it came.

        Raises:
            TorchlessError: it failed, or was stopped before it had begun.
            KeyboardInterrupt: Ctrl-C where the view takes it as meant for all of the chat.
        """
        question = self.question()
        if self.is_debugging:
            self.view.show(self.partner.prompt_text(question))
        try:
            running = self._running = self.partner.answer(question)
        except ContextLengthError as error:
            raise TorchlessError(
                f"the conversation has grown to {error.num_prompt_tokens} tokens but the context holds "
                f"{error.context_length}; start anew with /clear, or chat with a longer context (--ctx)"
            ) from None
        if self._is_stopped:  # before it could be told so
            running.cancel()
        text, reasoning = self._read(running)
        report = running.report
        if not text and not reasoning and (report is None or report.finish_reason == "cancelled"):
            raise TorchlessError("stopped; the question was taken back")
        statistics = None if report is None else asdict(report)
        self.conversation.add("assistant", text, reasoning_content=reasoning or None, statistics=statistics)
        self.num_context_tokens = None if report is None else report.num_context_tokens
        if report is not None:
            self._tell_end(report)
        if self.is_coding:
            self._stage(text)

    def stop(self) -> None:
        """Ends the answer that is being written, or what is being loaded. From any thread."""
        self._is_stopped = True
        running = self._running
        if running is not None:
            running.cancel()

    def question(self) -> Question:
        """The conversation as the partner gets it."""
        messages = self.conversation.request()
        if self.is_coding:
            has_system = bool(messages) and messages[0]["role"] == "system"
            system = messages.pop(0)["content"] + "\n\n" if has_system else ""
            messages.insert(0, {"role": "system", "content": system + edit_instructions()})
        if self.shifts_context:
            messages = self._fitting(messages)
        return Question(
            messages, self.conversation.params, frozenset(self.chosen), self.constraint, self.thinking
        )

    def _fitting(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What fits the context of a conversation; says so where that becomes less."""
        talk, length = self.conversation, self.partner.context_length
        if length is None:
            return messages
        before = talk.num_dropped
        most = length - answer_room(length, talk.params.max_tokens)
        talk.num_dropped = fitting(messages, before, most, lambda some: self.partner.count_tokens(some) or 0)
        if talk.num_dropped > before:
            self.view.note(
                f"The context is full: the oldest {talk.num_dropped} messages are left out from now on."
            )
        return without_oldest(messages, talk.num_dropped)

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called since the last message."""
        return self._is_stopped

    @property
    def num_tokens_so_far(self) -> int:
        """Tokens of the answer that is being written, or was written last."""
        return 0 if self._running is None else self._running.num_tokens

    def context_tokens(self) -> int | None:
        """Tokens that the conversation takes; None where nobody knows."""
        if self.num_context_tokens is None:
            self.num_context_tokens = self.partner.count_tokens(self.question().messages)
        return self.num_context_tokens

    def _read(self, running: Answer) -> tuple[str, str]:
        """Shows an answer as it comes; returns its text and reasoning."""
        view = self.view
        text: list[str] = []
        reasoning: list[str] = []
        view.begin_answer()
        try:
            for piece in running:
                (reasoning if piece.is_reasoning else text).append(piece.text)
                view.piece(piece)
        except KeyboardInterrupt:
            running.cancel()
            if not view.interrupted():
                raise
        finally:
            running.cancel()
            view.end_answer(running.report)
        return "".join(text), "".join(reasoning)

    def _tell_end(self, report: Report) -> None:
        """Says why an answer ended where that is not obvious, and with /debug what it took."""
        if self.is_debugging:
            from torchless.chat.reports import report_lines

            self.view.show("\n".join(report_lines(report)))
        if report.finish_reason != "length":
            return
        if report.num_completion_tokens == self.conversation.params.max_tokens:
            self.view.note(f"Ended after {report.num_completion_tokens} tokens (max_tokens).")
        elif self.partner.context_length is not None:
            length = self.partner.context_length
            self.view.warn(f"The context of {length} tokens is full; /clear starts anew.")
        else:
            self.view.warn("The server says that the answer reached its longest length.")

    def _stage(self, text: str) -> None:
        """Takes changes to files out of an answer."""
        edits, problems = find_edits(text)
        problems += self.edits.stage(edits)
        for problem in problems:
            self.view.error(problem)
        if self.edits:
            self.view.note(
                f"Changes to {', '.join(self.edits.paths)}: /diff shows them, /apply writes them, "
                f"/discard forgets them."
            )
