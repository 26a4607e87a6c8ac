"""The chat: reads messages, streams answers, and hands lines that start with a slash to the commands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchless.cli.conversation import Conversation
from torchless.cli.message_reader import MessageReader
from torchless.cli.terminal import TextOutput, note, print_error
from torchless.errors import ContextLengthError, TorchlessError

if TYPE_CHECKING:
    from torchless.llm import LLM
    from torchless.results import Completion

__all__ = ["ChatSession"]


class ChatSession:
    """One chat with one model.

    Attributes:
        llm: who answers.
        conversation: everything said so far; sent again with every question.
        num_context_tokens: tokens that the conversation took at its last answer (written by `answer`).
        is_over: the user wants to leave (written by commands).
    """

    def __init__(
        self, llm: LLM, conversation: Conversation, constraint: Mapping[str, Any] | None = None
    ) -> None:
        """Sets a chat up; `constraint` has the keyword that says what every answer must match, or is empty."""
        self.llm = llm
        self._constraint = dict(constraint or {})
        self.conversation = conversation
        self.num_context_tokens = 0
        self.is_over = False
        self._reader = MessageReader()

    def run(self) -> bool:
        """Chats until the user leaves or the input ends. A failed question or command does not end it.

        Returns:
            Whether nothing failed. (A person sees that; a script wants to know.)

        Raises:
            KeyboardInterrupt: Ctrl-C while input comes from a pipe.
            InvalidRequestError: piped text is not valid UTF-8.
        """
        reader, is_flawless = self._reader, True
        name = str(self.llm.info.get("name") or Path(str(self.llm.info["path"])).stem)
        note(f"Chatting with {name}. /help lists the commands, Ctrl-D leaves.")
        while not self.is_over:
            try:
                message = reader.read()
            except KeyboardInterrupt:
                if not reader.is_interactive:
                    raise
                print()
                note("Ctrl-D or /exit leaves.")
                continue
            if message is None:
                if reader.is_interactive:
                    print()
                break
            is_flawless &= self._take(message)
        return is_flawless or reader.is_interactive

    def _take(self, message: str) -> bool:
        """One message: a command, a question, or nothing. False if it failed."""
        try:
            if message.startswith("/"):
                from torchless.cli.chat_commands import run_command

                run_command(self, message)
            elif message.strip():
                self.ask(message)
        except TorchlessError as error:
            print_error(str(error))
            return False
        return True

    def ask(self, question: str) -> None:
        """Adds a question and answers it. One that fails is taken back, so that another can be asked."""
        self.conversation.add("user", question)
        try:
            self.answer()
        except BaseException:
            self.conversation.messages.pop()
            raise

    def answer(self) -> None:
        """Streams an answer to the last question and adds it. Ctrl-C ends it; what came so far is kept.

        Raises:
            KeyboardInterrupt: Ctrl-C where nobody types, which is meant for all of it.
            ContextLengthError: the conversation is longer than the context.
        """
        talk, output = self.conversation, TextOutput()
        pieces: list[str] = []
        completion: Completion | None = None
        try:
            chunks = self.llm.stream_chat(talk.request(), params=talk.params, **self._constraint)
        except ContextLengthError as error:
            raise TorchlessError(
                f"the conversation has grown to {error.num_prompt_tokens} tokens but the context holds "
                f"{error.context_length}; start anew with /clear, or chat with a longer context (--ctx)"
            ) from None
        try:
            for chunk in chunks:
                pieces.append(chunk.text)
                output.write(chunk.text)
                completion = chunk.completion
        except KeyboardInterrupt:
            output.interrupted()
            chunks.close()
            if not self._reader.is_interactive:
                raise
            if not any(pieces):
                raise _WithdrawnError("stopped; the question was taken back") from None
        finally:
            output.finish_line()
        talk.add("assistant", "".join(pieces))
        if completion is not None:
            self._report(completion)

    def _report(self, completion: Completion) -> None:
        usage = completion.usage
        self.num_context_tokens = usage.num_prompt_tokens + usage.num_completion_tokens
        if completion.finish_reason != "length":
            return
        if usage.num_completion_tokens == completion.params.max_tokens:
            note(f"Ended after {usage.num_completion_tokens} tokens (max_tokens).")
        else:
            print(
                f"The context of {self.llm.context_length} tokens is full; /clear starts anew.",
                file=sys.stderr,
            )


class _WithdrawnError(TorchlessError):
    """A question that got no answer."""
