"""The answers to one call: several at once where it asks for that, read as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from torchless.llm import LLM
from torchless.requests import Request
from torchless.results import Chunk, Completion, FinishReason
from torchless.server.parts import Part, PlainReader, Reader, Reasoning, Text, ToolCall

__all__ = ["Answer", "Answers", "Piece"]


@dataclass(slots=True)
class Piece:
    """What is new in one of the answers.

    Attributes:
        index: of the answer.
        parts: in order; those without text are left out.
        chunk: what it was read from. The last one of each answer has the completion.
    """

    index: int
    parts: list[Part]
    chunk: Chunk

    @property
    def text(self) -> str:
        """The text of all parts that are text."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(slots=True)
class Answer:
    """A whole answer.

    Attributes:
        text, reasoning, calls, notes: its parts by kind.
        completion: what they were read from, with counts and times.
        num_reasoning_tokens: tokens that came while the model was thinking.
    """

    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    completion: Completion | None = None
    num_reasoning_tokens: int = 0

    def add(self, piece: Piece) -> None:
        """Takes a piece of this answer."""
        for part in piece.parts:
            if isinstance(part, Text):
                self.text += part.text
            elif isinstance(part, Reasoning):
                self.reasoning += part.text
            elif isinstance(part, ToolCall):
                self.calls.append(part)
            else:
                self.notes.append(part.text)
        if piece.parts and isinstance(piece.parts[0], Reasoning):
            self.num_reasoning_tokens += len(piece.chunk.token_ids)
        if piece.chunk.completion is not None:
            self.completion = piece.chunk.completion

    @property
    def done(self) -> Completion:
        """The completion of an answer that has ended."""
        assert self.completion is not None, "the answer has not ended"
        return self.completion

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended."""
        return self.done.finish_reason


class Answers:
    """Answers that are about to be written. Made by `begin`.

    Attributes:
        answers: all of them, as far as they have come.
    """

    def __init__(self, streams: Sequence[AsyncGenerator[Chunk, None]], readers: Sequence[Reader]) -> None:
        self._streams = list(streams)
        self._readers = list(readers)
        self.answers = [Answer() for _ in streams]

    @classmethod
    async def begin(
        cls, llm: LLM, requests: Sequence[Request], reader: Callable[[], Reader] = PlainReader
    ) -> Answers:
        """Checks and encodes all requests. They start when `pieces` or `whole` is called.

        Args:
            reader: makes what reads one answer.

        Raises:
            TorchlessError: something is wrong with a request.
        """
        streams = [await llm.aprepare(request) for request in requests]
        return cls(streams, [reader() for _ in requests])

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """All pieces, as they come. Closing it ends the requests."""
        async with contextlib.aclosing(_merged(self._streams)) as chunks:
            async for index, chunk in chunks:
                reader = self._readers[index]
                parts = reader.push(chunk.text)
                if chunk.completion is not None:
                    parts = [*parts, *reader.finish()]
                piece = Piece(index, parts, chunk)
                self.answers[index].add(piece)
                yield piece

    async def whole(self) -> list[Answer]:
        """All answers, once they have ended. Cancelling it ends the requests."""
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for _ in pieces:
                pass
        return self.answers


async def _merged(
    streams: Sequence[AsyncGenerator[Chunk, None]],
) -> AsyncGenerator[tuple[int, Chunk], None]:
    """The chunks of all streams with the streams' numbers. Closes them all."""
    if len(streams) == 1:
        async with contextlib.aclosing(streams[0]) as chunks:
            async for chunk in chunks:
                yield 0, chunk
        return
    arrived: asyncio.Queue[tuple[int, Chunk | BaseException | None]] = asyncio.Queue()

    async def read(index: int, stream: AsyncGenerator[Chunk, None]) -> None:
        try:
            async with contextlib.aclosing(stream) as chunks:
                async for chunk in chunks:
                    arrived.put_nowait((index, chunk))
            arrived.put_nowait((index, None))
        except Exception as error:
            arrived.put_nowait((index, error))

    tasks = [asyncio.create_task(read(index, stream)) for index, stream in enumerate(streams)]
    try:
        num_open = len(tasks)
        while num_open:
            index, found = await arrived.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                num_open -= 1
            else:
                yield index, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
