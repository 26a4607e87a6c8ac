"""What a bench runs: one case per combination of prompt, depth and number of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torchless.backends.base import PAGE_TOKENS
from torchless.errors import InvalidRequestError

__all__ = ["Case", "batch_cases", "generation_cases"]


@dataclass(frozen=True, slots=True)
class Case:
    """Work that is timed.

    Each of `num_sequences` sequences has `depth` tokens of context already (not timed). Then it takes in a prompt of
    `prompt_tokens` and decodes `new_tokens`, one a step, all sequences together.

    Attributes:
        is_shared: the sequences have the same `depth` tokens, in the same pages of the cache.
    """

    prompt_tokens: int
    new_tokens: int
    depth: int = 0
    num_sequences: int = 1
    is_shared: bool = False

    @property
    def name(self) -> str:
        """llama-bench's name of the test: ``pp512``, ``tg128 @ d4096``; ``tg32 x 8`` for eight sequences."""
        parts = [f"pp{self.prompt_tokens}" if self.prompt_tokens else ""]
        parts.append(f"tg{self.new_tokens}" if self.new_tokens else "")
        name = "+".join(part for part in parts if part)
        name += f" x {self.num_sequences}" if self.num_sequences > 1 else ""
        name += f" @ d{self.depth}" if self.depth else ""
        return name + (" shared" if self.is_shared else "")

    @property
    def num_tokens(self) -> int:
        """Tokens whose time is taken, of all sequences."""
        return (self.prompt_tokens + self.new_tokens) * self.num_sequences

    @property
    def length(self) -> int:
        """Tokens of one sequence at the end."""
        return self.depth + self.prompt_tokens + self.new_tokens

    @property
    def own_pages(self) -> int:
        """Pages of the cache that one sequence fills beyond the whole pages of its depth."""
        return -(-self.length // PAGE_TOKENS) - self.depth // PAGE_TOKENS


def generation_cases(
    prompts: Sequence[int], news: Sequence[int], pairs: Sequence[tuple[int, int]], depths: Sequence[int]
) -> list[Case]:
    """llama-bench's order: at every depth the prompts, the decodings, then both in one. 0 leaves a test out."""
    cases = [
        case
        for depth in depths
        for case in (
            *(Case(tokens, 0, depth) for tokens in prompts if tokens),
            *(Case(0, tokens, depth) for tokens in news if tokens),
            *(Case(prompt, new, depth) for prompt, new in pairs if prompt + new),
        )
    ]
    return list(dict.fromkeys(cases))


def batch_cases(batches: Sequence[int], news: Sequence[int], depths: Sequence[int]) -> list[Case]:
    """Decoding of several sequences with contexts of their own, and with a shared one.

    Raises:
        InvalidRequestError: there is nothing to decode.
    """
    if not any(news):
        raise InvalidRequestError("-n is 0, but the kind 'batch' measures decoding; give it a number above 0")
    cases = [
        Case(0, new, depth, batch, is_shared)
        for depth in depths
        for new in news
        if new
        for is_shared in (False, True)
        for batch in batches
        if not is_shared or (batch > 1 and depth >= PAGE_TOKENS)
    ]
    return list(dict.fromkeys(cases))
