"""Who guesses the next tokens of a sequence: one file per drafter, found by its name.

A drafter's file offers ``build(context)``, which returns a `Drafter`. Guesses are free to be wrong: whatever is
drafted, a step of the model decides what is kept, so that a drafter changes the speed of an answer and never the
answer.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Hashable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple, Protocol

from torchless.backends.base import Executor
from torchless.engine.sequence import Sequence

__all__ = ["Drafter", "DrafterContext", "Guess", "build_drafter", "drafter_names"]


class Guess(NamedTuple):
    """Tokens that may follow a sequence.

    Attributes:
        token_ids: one after another.
        sources: what each token rests on: tokens with the same source are about as often right. Of a tuple the first
            element is counted besides, for all sources that begin with it together.
    """

    token_ids: list[int]
    sources: SequenceOf[Hashable]


@dataclass(frozen=True, slots=True)
class DrafterContext:
    """What a drafter may work with.

    Attributes:
        draft_model: the executor of a second model with the same vocabulary, or None.
        context_length: most tokens that the second model takes.
        num_token_ids: token ids of the model that is drafted for.
    """

    draft_model: Executor | None = None
    context_length: int = 0
    num_token_ids: int = 0


class Drafter(Protocol):
    """Guesses what follows sequences. One caller at a time."""

    is_free: bool
    """Whether a guess costs next to nothing beside a step of any model."""

    def draft(self, sequences: list[Sequence], num_tokens: int, width: int) -> list[list[Guess]]:
        """Guesses for each sequence, the best first.

        Args:
            num_tokens: most tokens of a guess.
            width: most guesses for a sequence.
        """
        ...

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended; what is kept for it can go."""
        ...

    def close(self) -> None:
        """Frees everything."""
        ...


def drafter_names() -> list[str]:
    """Drafters that this installation has: the files of this folder, with hyphens in their names."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def build_drafter(name: str, context: DrafterContext) -> Drafter:
    """A drafter by its name."""
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    drafter: Drafter = module.build(context)
    return drafter
