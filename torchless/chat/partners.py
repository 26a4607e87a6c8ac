"""Who answers in a chat, as the chat sees it: a loaded model (`local`) or a server (`remote`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torchless.backends.base import Progress
from torchless.sampling.parameters import SamplingParams

__all__ = ["Answer", "Partner", "Piece", "Progress", "Question", "Report"]


class Piece(NamedTuple):
    """A piece of an answer; some tokens complete no text."""

    text: str
    is_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        messages: the whole conversation, as roles and contents.
        params: sampling parameters.
        chosen: names of those that the user set; a server has defaults of its own for the others.
        constraint: the keyword that says what the answer must match, or empty.
        thinking: how much to think (`torchless.text.thinking`); None leaves that to the model.
    """

    messages: Sequence[Mapping[str, Any]]
    params: SamplingParams
    chosen: frozenset[str] = frozenset()
    constraint: Mapping[str, Any] = field(default_factory=dict)
    thinking: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of an answer that has ended; None is unknown.

    Attributes:
        finish_reason: "stop", "length" or "cancelled", or what a server says.
        num_prompt_tokens, num_completion_tokens: of the conversation and the answer.
        num_cached_tokens: of the prompt's, those that did not have to be computed.
        tokens_per_second: from the first token to the last; 0.0 where nothing could be timed.
        first_token_ms: from the question to the first token.
        seed: repeats the answer.
    """

    finish_reason: str
    num_prompt_tokens: int | None
    num_completion_tokens: int | None
    tokens_per_second: float
    first_token_ms: float
    num_cached_tokens: int | None = None
    seed: int | None = None

    @property
    def num_context_tokens(self) -> int | None:
        """Tokens that conversation and answer take together."""
        if self.num_prompt_tokens is None or self.num_completion_tokens is None:
            return None
        return self.num_prompt_tokens + self.num_completion_tokens


class Answer(Protocol):
    """An answer that is being written.

    Attributes:
        num_tokens: how many have come (of a server: pieces).
        report: set once the iteration has ended.
    """

    num_tokens: int
    report: Report | None

    def __iter__(self) -> Iterator[Piece]:
        """The pieces as they come. Ends early, without an error, once `cancel` was called."""
        ...

    def cancel(self) -> None:
        """Ends it soon. From any thread, at any time."""
        ...


class Partner(Protocol):
    """Who answers.

    Attributes:
        name: for people.
        defaults: sampling parameters that hold where the user chose none.
        context_length: most tokens of a conversation; None where a server does not say.
        is_remote: a server, whose sampling parameters hold where the user chose none.
    """

    is_remote: bool

    @property
    def name(self) -> str: ...

    @property
    def defaults(self) -> SamplingParams: ...

    @property
    def context_length(self) -> int | None: ...

    def answer(self, question: Question) -> Answer:
        """Begins an answer.

        Raises:
            ContextLengthError: the conversation is longer than the context.
            TorchlessError: other reasons not to answer.
        """
        ...

    def prompt_text(self, question: Question) -> str:
        """What is handed to the model, as text."""
        ...

    def check_thinking(self, thinking: str) -> None:
        """Raises TorchlessError where it cannot be asked to think so much."""
        ...

    def count_tokens(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """Tokens that a conversation takes; None where a server does not say."""
        ...

    def describe(self) -> list[tuple[str, str]]:
        """Names and values for people: model, machine."""
        ...

    def switch(self, model: str, progress: Progress) -> list[str]:
        """Lets another model answer from now on. One that cannot leaves everything as it was.

        Returns:
            Sentences about what a person should know.
        """
        ...

    def reload(self, progress: Progress, **changes: Any) -> list[str]:
        """Loads the same model with other keywords of `torchless.load`; as `switch` otherwise."""
        ...

    @property
    def templates(self) -> list[tuple[str, str]]:
        """Chat templates that can be chosen: name, what it is; and which is in use."""
        ...

    def use_template(self, name: str) -> str:
        """Uses a chat template of this name, or in this file, from now on. Returns what it is."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...
