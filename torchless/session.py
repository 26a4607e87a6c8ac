"""A conversation with a model: asked turn by turn, saved and loaded, forked, and longer than the context if need be."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchless.chat.context_shift import answer_room, fitting, without_oldest
from torchless.chat.conversation import Conversation
from torchless.errors import InvalidRequestError
from torchless.requests import Request
from torchless.results import Chunk, Completion

if TYPE_CHECKING:
    from torchless.llm import LLM

__all__ = ["Session"]


class Session:
    """Remembers what was said, and sends it with each question. Made by `LLM.session`; one thread at a time.

    The prefix cache makes this cheap: a turn computes what the last one did not, and forks share what they have in
    common, in memory and, with ``load(prefix_cache_dir=...)``, after a restart too.

    Attributes:
        conversation: what was said; may be changed between two questions.
        context_shift: leave out the oldest turns once they do not fit the context, instead of an error.

    Example:
        session = model.session(system="You are brief.")
        print(session.send("What is a page table?").text)
        other = session.fork()
        print(other.send("And a translation lookaside buffer?").text)
        session.save("talk.json")
    """

    def __init__(self, llm: LLM, conversation: Conversation, *, context_shift: bool = False) -> None:
        self.conversation = conversation
        self.context_shift = context_shift
        self._llm = llm

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All that was said, the system message first; a copy."""
        return self.conversation.request()

    @property
    def num_dropped_messages(self) -> int:
        """How many of the oldest messages, the system message apart, the model is not told any more."""
        return self.conversation.num_dropped

    def send(self, content: str, **options: Any) -> Completion:
        """Asks and waits for the answer. What fails is as if it had not been asked.

        Args:
            content: the question.
            **options: as of `LLM.chat`, for this answer alone.

        Raises:
            ContextLengthError: the conversation is longer than the context; with `context_shift` the question is.
            TemplateError, InvalidRequestError, TokenizerError, TypeError: as in `LLM.chat`.
        """
        completion = None
        for chunk in self.stream(content, **options):
            completion = chunk.completion or completion
        assert completion is not None
        return completion

    def stream(self, content: str, **options: Any) -> Generator[Chunk, None, None]:
        """Like `send`, in pieces as they come. An iterator that is closed early keeps the answer as far as it came."""
        talk = self.conversation
        talk.add("user", content)
        pieces: list[str] = []
        was_dropped = talk.num_dropped
        try:
            messages, options = self._fitting(options)
            with closing(self._llm.stream_chat(messages, **options)) as chunks:
                for chunk in chunks:
                    pieces.append(chunk.text)
                    if chunk.completion is not None:
                        completion = replace(chunk.completion, num_dropped_messages=talk.num_dropped)
                        chunk = replace(chunk, completion=completion)
                    yield chunk
        except GeneratorExit:
            self._note("".join(pieces), was_dropped)
            raise
        except BaseException:
            self._note("", was_dropped)
            raise
        self._note("".join(pieces), was_dropped, is_whole=True)

    def fork(self) -> Session:
        """A conversation that has begun like this one and goes on by itself. Nothing is computed again for it."""
        return Session(self._llm, deepcopy(self.conversation), context_shift=self.context_shift)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the conversation to a JSON file, with its settings; `torchless chat` reads it with ``/load``.

        Raises:
            InvalidRequestError: it cannot be written.
        """
        self.conversation.save(Path(path))

    def load(self, path: str | os.PathLike[str]) -> Session:
        """Goes on with a conversation that was saved, here or by ``/save``, in place of this one; returns itself.

        Raises:
            InvalidRequestError: no such file, or no conversation; this one stays.
        """
        self.conversation = Conversation.load(Path(path), self.conversation.params)
        return self

    # -- one answer -------------------------------------------------------------------------------

    def _fitting(self, options: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What is sent, and the options of the request."""
        talk = self.conversation
        options = {"params": talk.params, **options}
        names = options.keys() & {"max_tokens", "n", "best_of"}
        params = options["params"].updated(**{name: options[name] for name in names})
        if params.n != 1:
            raise InvalidRequestError(f"a conversation goes on with one answer, but n is {params.n}")
        messages = talk.request()
        if self.context_shift:
            length = self._llm.context_length
            room = answer_room(length, params.max_tokens)
            told = {name: options[name] for name in options.keys() & {"tools", "chat_template_kwargs"}}

            def count(some: list[dict[str, Any]]) -> int:
                return len(self._llm.encode(Request(messages=some, **told)))

            talk.num_dropped = fitting(messages, talk.num_dropped, length - room, count)
        return without_oldest(messages, talk.num_dropped), options

    def _note(self, answer: str, was_dropped: int, *, is_whole: bool = False) -> None:
        """Adds an answer; without one, the question is taken back."""
        if answer or is_whole:
            self.conversation.add("assistant", answer)
        else:
            self.conversation.messages.pop()
            self.conversation.num_dropped = was_dropped
