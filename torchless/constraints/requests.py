"""Keywords of a request that say what its text must match, under our names and those of other tools."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torchless.errors import InvalidRequestError
from torchless.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torchless.constraints.grammars import Grammar
    from torchless.constraints.matcher import Matcher, MatcherPool

__all__ = ["ALIASES", "NAMES", "Constraints", "parse_json", "take_grammar"]

NAMES = ("schema", "regex", "grammar", "choices", "json")

ALIASES = {
    "json_schema": "schema",
    "guided_json": "schema",
    "guided_regex": "regex",
    "guided_grammar": "grammar",
    "guided_choice": "choices",
    "choice": "choices",
    "json_object": "json",
    "response_format": "response_format",  # OpenAI's dictionary
    "structured_outputs": "structured_outputs",  # vLLM's dictionary
    "format": "format",  # Ollama's "json" or schema
}
"""Other tools' keyword -> ours."""


class Constraints:
    """Makes constraints for the requests of one model. Usable from several threads; does nothing until it is asked."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """Args: tokenizer: the model's; vocab_size: rows of its logits."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._pool: MatcherPool | None = None
        self._lock = threading.Lock()

    def matcher(self, grammar: Grammar, more_end_ids: Collection[int] = ()) -> Matcher:
        """A constraint at its start; see `MatcherPool.matcher`."""
        from torchless.constraints.matcher import MatcherPool
        from torchless.constraints.tokens import GrammarTokens

        with self._lock:
            if self._pool is None:
                self._pool = MatcherPool(GrammarTokens(self._tokenizer, self._vocab_size))
        return self._pool.matcher(grammar, more_end_ids)

    def close(self) -> None:
        """Ends the worker threads."""
        if self._pool is not None:
            self._pool.close()


def take_grammar(keywords: dict[str, Any]) -> Grammar | None:
    """Takes what the text must match out of a request's keywords; None where nothing is asked for.

    Raises:
        InvalidRequestError: two of them at once.
        GrammarError: one that cannot be enforced.
        UnsupportedError: the library llguidance is not installed.
    """
    taken = [(name, keywords.pop(name)) for name in [*NAMES, *ALIASES] if name in keywords]
    wanted = [
        (given, *_meaning(given, value)) for given, value in taken if value is not None and value is not False
    ]
    wanted = [item for item in wanted if item[1]]
    if not wanted:
        return None
    if len(wanted) > 1:
        given = " and ".join(item[0] for item in wanted)
        raise InvalidRequestError(f"a text can follow one of {given} only; put both into one grammar")
    _, name, value = wanted[0]
    from torchless.constraints import grammars

    if name == "json":
        if value is not True:
            raise InvalidRequestError(f"json must be True or False, got {value!r}; a schema goes by schema=")
        return grammars.grammar_from_schema({"type": "object"})
    makers = {
        "schema": grammars.grammar_from_schema,
        "regex": grammars.grammar_from_regex,
        "grammar": grammars.grammar_from_text,
        "choices": grammars.grammar_from_choices,
    }
    return makers[name](value)


def _meaning(given: str, value: Any) -> tuple[str, Any]:
    """Our keyword and its value; an empty one where nothing is asked for."""
    if given == "format":
        return ("json", True) if value == "json" else ("schema", value) if value != "" else ("", None)
    if given == "response_format":
        return _response_format(value)
    if given == "structured_outputs":
        return _structured_outputs(value)
    return ALIASES.get(given, given), value


def _response_format(value: Any) -> tuple[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return "", None
    if kind == "json_object":
        return ("schema", value["schema"]) if value.get("schema") is not None else ("json", True)
    if kind == "json_schema":
        inner = value.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, Mapping) else value.get("schema")
        if schema is not None:
            return "schema", schema
    if kind is None and hasattr(value, "model_json_schema"):
        return "schema", value
    raise InvalidRequestError(
        'response_format must be {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": '
        f'{{"schema": ...}}}}, got {str(value)[:80]}'
    )


def _structured_outputs(value: Any) -> tuple[str, Any]:
    names = {
        "json": "schema",
        "regex": "regex",
        "choice": "choices",
        "grammar": "grammar",
        "json_object": "json",
    }
    set_ones = [name for name in value if value[name]] if isinstance(value, Mapping) else []
    if len(set_ones) != 1 or set_ones[0] not in names:
        raise InvalidRequestError(
            f"structured_outputs must be a dictionary with one of {', '.join(names)}, got {str(value)[:80]}"
        )
    return names[set_ones[0]], value[set_ones[0]]


def parse_json(text: str) -> Any:
    """The value that a JSON text writes; None where Python cannot hold it (a number of 5,000 digits)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
