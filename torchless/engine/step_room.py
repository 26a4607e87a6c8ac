"""A step while it is put together: who is in it with how much, and what is left of its limits."""

from __future__ import annotations

from torchless.engine.draft_tree import DraftTree
from torchless.engine.sequence import Sequence

__all__ = ["StepRoom"]


class StepRoom:
    """What a step holds so far.

    Args:
        max_tokens: most token rows.
        max_outputs: most logits rows.

    Attributes:
        chosen: (tokens, outputs) of each sequence, in the order of the batch.
        drafts: trees of those that have one; their nodes count in `chosen`.
        tokens_left, outputs_left: what is left.
        prompt_tokens_left: of `tokens_left`, what prompts may have.
    """

    def __init__(self, max_tokens: int, max_outputs: int) -> None:
        self.max_tokens = max_tokens
        self.max_outputs = max_outputs
        self.chosen: dict[Sequence, tuple[int, int]] = {}
        self.drafts: dict[Sequence, DraftTree] = {}
        self.clear()

    def clear(self) -> None:
        """Begins a step."""
        self.chosen.clear()
        self.drafts.clear()
        self.tokens_left = self.prompt_tokens_left = self.max_tokens
        self.outputs_left = self.max_outputs

    def limit_prompts(self, num_tokens: int) -> None:
        """Leaves prompts no more than so many tokens."""
        self.prompt_tokens_left = min(self.tokens_left, num_tokens)

    def take(self, sequence: Sequence, num_tokens: int, num_outputs: int) -> None:
        """Adds a sequence."""
        self.chosen[sequence] = (num_tokens, num_outputs)
        self.tokens_left -= num_tokens
        self.prompt_tokens_left -= num_tokens
        self.outputs_left -= num_outputs

    def draft(self, sequence: Sequence, tree: DraftTree) -> None:
        """Adds a tree behind the one token that a sequence decodes."""
        self.drafts[sequence] = tree
        self.chosen[sequence] = (1 + tree.num_drafted, 1 + tree.num_drafted)
        self.tokens_left -= tree.num_drafted
        self.outputs_left -= tree.num_drafted

    def give_back(self, sequence: Sequence) -> None:
        """Takes a sequence out, if it is in."""
        num_tokens, num_outputs = self.chosen.pop(sequence, (0, 0))
        self.tokens_left += num_tokens
        self.outputs_left += num_outputs
