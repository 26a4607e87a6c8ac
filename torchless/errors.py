"""The exception tree. Every failure a user can meet is one of these; nothing aborts the process.

Messages say what was found, what was expected and what to do next.
"""

from __future__ import annotations

__all__ = [
    "ContextLengthError",
    "FormatError",
    "GrammarError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "TemplateError",
    "TokenizerError",
    "TorchlessError",
    "UnsupportedError",
]


class TorchlessError(Exception):
    """Base of all errors raised on purpose by torchless."""


class FormatError(TorchlessError, ValueError):
    """A file is broken, truncated or hostile. The message names the file and the field."""


class UnsupportedError(TorchlessError):
    """A well-formed file asks for something torchless does not implement (named in the message)."""


class ModelNotFoundError(TorchlessError, FileNotFoundError):
    """The model given by the user is not there."""


class ContextLengthError(TorchlessError, ValueError):
    """A prompt does not fit the context window. Prompts are never cut silently.

    Attributes:
        num_prompt_tokens: length of the prompt that was given.
        context_length: tokens that the loaded model can hold.
    """

    def __init__(self, num_prompt_tokens: int, context_length: int, message: str | None = None) -> None:
        super().__init__(
            message
            or f"the prompt has {num_prompt_tokens} tokens but the context holds {context_length} "
            f"(at least one must stay free for the answer); shorten the prompt or load the model "
            f"with a larger context (ctx=..., --ctx)"
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.context_length = context_length


class OutOfMemoryError(TorchlessError, MemoryError):
    """The model with this context does not fit into the memory that is free. Raised before allocating."""


class TemplateError(TorchlessError, ValueError):
    """A chat template is missing, does not parse, or refused the messages."""


class TokenizerError(TorchlessError, ValueError):
    """Text or token ids that the tokenizer cannot handle."""


class InvalidRequestError(TorchlessError, ValueError):
    """A parameter of a request is out of range or unknown (named in the message)."""


class GrammarError(InvalidRequestError):
    """A schema, expression or grammar cannot be enforced as a whole; the message names the place."""
