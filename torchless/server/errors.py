"""What went wrong with a call: a status, a sentence, and a code, which each API writes in its own shape."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torchless.errors import (
    ContextLengthError,
    GrammarError,
    ModelNotFoundError,
    OutOfMemoryError,
    TorchlessError,
)

__all__ = ["ApiError", "explained"]

_FIRST_WORD = re.compile(r"[a-z][a-z0-9_]*")


class ApiError(Exception):
    """A call that is answered by an error.

    Attributes:
        status: of HTTP.
        message: what was found, what was expected, what to do.
        code: a name that programs can compare (``context_length_exceeded``).
        param: the field at fault, where one is.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


def explained(error: Exception, fields: Mapping[str, object] | None = None) -> ApiError | None:
    """The answer to an error that torchless raises on purpose; None for any other, which is a fault of the server.

    Args:
        fields: of the request's body, among which the one at fault is looked for.
    """
    if isinstance(error, ApiError):
        return error
    message = str(error)
    if isinstance(error, ContextLengthError):
        param = "messages" if fields and "messages" in fields else "prompt"
        return ApiError(400, message, code="context_length_exceeded", param=param)
    if isinstance(error, GrammarError):
        return ApiError(400, message, code="unsupported_schema", param=_field_at_fault(message, fields))
    if isinstance(error, ModelNotFoundError):
        return ApiError(404, message, code="model_not_found", param="model")
    if isinstance(error, OutOfMemoryError):
        return ApiError(503, message, code="out_of_memory", headers={"Retry-After": "30"})
    if isinstance(error, TorchlessError):
        return ApiError(400, message, code="invalid_value", param=_field_at_fault(message, fields))
    return None


# What a message calls it -> what a field may be called.
_OTHER_NAMES = {
    "schema": ("response_format", "format", "json_schema", "guided_json", "structured_outputs"),
    "regex": ("guided_regex", "structured_outputs"),
    "choices": ("guided_choice", "structured_outputs"),
    "grammar": ("guided_grammar", "structured_outputs"),
    "max_tokens": ("max_completion_tokens", "num_predict", "n_predict", "max_output_tokens"),
    "repeat_penalty": ("repetition_penalty",),
}


def _field_at_fault(message: str, fields: Mapping[str, object] | None) -> str | None:
    """The field of the body that a message begins with."""
    found = _FIRST_WORD.match(message)
    if found is None or not fields:
        return None
    for name in (found[0], *_OTHER_NAMES.get(found[0], ())):
        if name in fields:
            return name
    return None
