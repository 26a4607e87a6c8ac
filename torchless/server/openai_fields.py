"""Fields of OpenAI's APIs that change no text here: accepted, or refused by name."""

from __future__ import annotations

from typing import Any

from torchless.server.errors import ApiError

__all__ = ["take_fixed"]

# Names for the caller's own books, and hints that a cache or a draft may follow or not.
_WITHOUT_EFFECT = frozenset(
    {
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "prediction",
    }
)
# Field -> values that ask for nothing which is not done anyway.
_ONLY: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "moderation": (),
    "audio": (),
    "web_search_options": (),
    "functions": (),
    "function_call": (),
    "best_of": (1,),
}
_ADVICE = {
    "store": "nothing is stored here",
    "functions": "this field is deprecated; send tools",
    "function_call": "this field is deprecated; send tool_choice",
    "best_of": "ask for n answers and choose one",
    "audio": "models write text here",
    "modalities": "models write text here",
    "web_search_options": "models do not search here",
}


def take_fixed(others: dict[str, Any]) -> None:
    """Takes out of a body's other fields what has no effect.

    Raises:
        ApiError: a field asks for what is not done here; the message names it.
    """
    for name in [*others]:
        if name in _WITHOUT_EFFECT:
            del others[name]
        elif name in _ONLY:
            value = others.pop(name)
            if not any(type(value) is type(allowed) and value == allowed for allowed in _ONLY[name]):
                advice = _ADVICE.get(name, "leave it out")
                raise ApiError(
                    400,
                    f"{name}: {value!r:.80} is not supported; {advice}",
                    code="unsupported_field",
                    param=name,
                )
