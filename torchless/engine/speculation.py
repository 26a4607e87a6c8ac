"""Speculative decoding: which tokens are drafted for the next step, and whether that is worth its time.

Drafters guess, guesses become one tree of tokens per sequence, one step computes the logits of all its nodes, and the
sampler decides node by node what it would have picked anyway (`Engine`). So answers are those of plain decoding, bit
for bit, greedy or sampled; only their speed is at stake here.

The controller knows three things, all measured while it runs: what a step costs by its rows (`StepCosts`), how often
tokens are right by what they rest on (`Acceptance`), and what drafting itself takes. It keeps the nodes that make the
expected number of tokens per second largest, over all sequences of the step together:

    (sequences + sum of the chances of the kept nodes) / (drafting + step(sequences + kept nodes))

Where no node is worth it, nothing is drafted, and once in a while a few are, to see whether that has changed: as often
as the time that is lost so stays below `PROBE_SHARE` of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from typing import Any, NamedTuple

from torchless.engine.acceptance import Acceptance
from torchless.engine.draft_tree import DraftTree
from torchless.engine.drafters import Drafter, Guess
from torchless.engine.sequence import Sequence
from torchless.engine.step_costs import StepCosts

__all__ = ["MAX_DRAFT_TOKENS", "PROBE_SHARE", "Judgement", "Speculation"]

MAX_DRAFT_TOKENS = 16
"""Most nodes of a tree."""

PROBE_SHARE = 0.01
"""Most of the time that may go into drafts that are not worth it."""

_WORTH = 1.02  # the gain from which on drafting beats plain decoding
_REFRESH_STEPS = 64  # drafting steps after which a plain one is measured again
_LOOKUP_WIDTH, _MODEL_WIDTH = 3, 2  # guesses for a sequence, of a model at each token
_PROBE_DEPTH = 2  # tokens that a model guesses to see whether it pays again
_ASSUMED_SHARE = 0.15  # of a plain step, for a token of a drafting model, before anything is known
_LONGEST_REST = 128  # plain steps without a look at the text


class Judgement(NamedTuple):
    """What a step said about a tree: of each node on the kept path, the token that the sampler picked behind it."""

    tree: DraftTree
    picked: list[tuple[int, int]]


class Speculation:
    """Drafts for the sequences of one engine.

    Args:
        drafters: who guesses, the better ones first.
        num_tokens: most tokens drafted for a sequence in a step.
        is_adaptive: pick how many from what is measured; else always as many as there are.
        clock: in seconds.

    Attributes:
        num_drafted, num_kept: tokens so far.
    """

    def __init__(
        self,
        drafters: SequenceOf[Drafter],
        num_tokens: int = MAX_DRAFT_TOKENS,
        *,
        is_adaptive: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.num_tokens = num_tokens
        self.is_adaptive = is_adaptive
        self._clock = clock
        self.num_drafted = self.num_kept = 0
        self._free = [drafter for drafter in drafters if drafter.is_free]
        self._models = [drafter for drafter in drafters if not drafter.is_free]
        self._costs = StepCosts()
        self._common = Acceptance()
        self._rates: dict[Sequence, Acceptance] = {}
        self._draft_costs = StepCosts()  # of drafting models, by tokens of each sequence
        self._decode_seconds = 0.0  # of all steps
        self._lost_seconds = 0.0  # to drafts that were not expected to be worth it
        self._plain_steps_left = 0  # before the text is looked at again
        self._steps_since_plain = 0
        self._spent = 0.0  # on drafting for the step under way
        self._overhead = StepCosts()  # of it, what models do not take
        self._models_spent = 0.0

    def draft(self, sequences: SequenceOf[Sequence]) -> bool:
        """Sets `Sequence.draft` of sequences that are about to decode one token.

        Returns:
            Whether the step shall be observed.
        """
        if self._plain_steps_left > 0:
            self._plain_steps_left -= 1
            return False
        self._spent = 0.0
        chosen = [sequence for sequence in sequences if _may_draft(sequence)]
        if not chosen or self._must_measure(len(sequences)):
            return True
        self._draft(chosen, len(sequences))
        return True

    def _draft(self, chosen: list[Sequence], num_sequences: int) -> None:
        started = self._clock()
        trees = self._trees(chosen)
        self._spent = self._clock() - started
        self._overhead.add(1, self._spent - self._models_spent)
        num_kept = self._num_worth_it(trees, num_sequences)
        self._steps_since_plain = self._steps_since_plain + 1 if num_kept else 0
        if not num_kept:
            self._rest(num_sequences)
            return
        for sequence, tree in zip(chosen, _likeliest(trees, num_kept, self.num_tokens), strict=True):
            if tree.num_drafted:
                sequence.draft = tree

    def judge(self, sequence: Sequence, judgement: Judgement) -> None:
        """Learns from what became of a draft."""
        tree, num_kept = judgement.tree, 0
        rates = self._rates_of(sequence)
        if tree.is_chain:
            tried = [(node + 1, token_id) for node, token_id in judgement.picked if node < tree.num_drafted]
        else:
            picked = dict(judgement.picked)
            tried = [
                (node, picked[parent])
                for node, parent in enumerate(tree.parents)
                if node and parent in picked
            ]
        for node, token_id in tried:
            source, is_right = tree.sources[node], token_id == tree.token_ids[node]
            num_kept += is_right
            rates.add(source, is_right=is_right)
            if isinstance(source, tuple):
                rates.add(source[0], is_right=is_right)
        self.num_drafted += tree.num_drafted
        self.num_kept += num_kept
        sequence.num_drafted_tokens += tree.num_drafted
        sequence.num_kept_tokens += num_kept

    def observe(self, num_rows: int, seconds: float, *, is_decoding: bool) -> None:
        """Notes how long a step took, drafting included, and whether all its rows were of decoding sequences."""
        self._decode_seconds += seconds
        if is_decoding:
            self._costs.add(num_rows, seconds - self._spent)

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        self._rates.pop(sequence, None)
        for drafter in (*self._free, *self._models):
            drafter.forget(sequence)

    def describe(self) -> dict[str, Any]:
        """What drafts, and what came of it so far, as plain values."""
        return {
            "num_draft_tokens": "auto" if self.is_adaptive else self.num_tokens,
            "drafters": [type(drafter).__name__ for drafter in (*self._models, *self._free)],
            "num_drafted_tokens": self.num_drafted,
            "num_kept_tokens": self.num_kept,
        }

    def close(self) -> None:
        """Frees what the drafters hold."""
        for drafter in (*self._free, *self._models):
            drafter.close()

    # -- guessing ---------------------------------------------------------------------------------

    def _trees(self, sequences: list[Sequence]) -> list[DraftTree]:
        trees = [DraftTree() for _ in sequences]
        for drafter in self._free:
            guesses = drafter.draft(sequences, self.num_tokens, _LOOKUP_WIDTH)
            self._merge(sequences, trees, guesses)
        self._models_spent = 0.0
        depth = self._model_depth(sequences, trees)
        if depth:
            started = self._clock()
            for drafter in self._models:
                self._merge(sequences, trees, drafter.draft(sequences, depth, _MODEL_WIDTH))
            self._models_spent = self._clock() - started
            if all(sequence.num_drafted_tokens for sequence in sequences):  # none had its prompt before it
                self._draft_costs.add(depth, self._models_spent)
        return trees

    def _merge(self, sequences: list[Sequence], trees: list[DraftTree], guesses: list[list[Guess]]) -> None:
        for sequence, tree, found in zip(sequences, trees, guesses, strict=True):
            rates = self._rates_of(sequence)
            most = sequence.max_tokens - sequence.num_tokens - 1  # the step itself adds one more
            for guess in found:
                chances = [rates.rate(source) for source in guess.sources]
                tree.add(guess.token_ids[:most], guess.sources, chances)

    def _model_depth(self, sequences: list[Sequence], trees: list[DraftTree]) -> int:
        """How many tokens the drafting models shall guess."""
        if not self._models:
            return 0
        if not self.is_adaptive:
            return self.num_tokens
        plain = self._costs.seconds(len(sequences))
        overhead = self._overhead.seconds(1)
        rates = [self._rates_of(sequence).rate("draft model") for sequence in sequences]
        best, best_speed = 0, self._speed_of(trees, len(sequences)) * _WORTH
        expected, chances = float(len(sequences)), [1.0] * len(sequences)
        for depth in range(1, self.num_tokens + 1):
            chances = [chance * rate for chance, rate in zip(chances, rates, strict=True)]
            expected += sum(chances)
            seconds = overhead + self._drafting(depth, plain)
            seconds += self._costs.seconds(len(sequences) * (1 + depth))
            if expected > best_speed * seconds:
                best, best_speed = depth, expected / seconds
            elif best and depth > best + 2:
                break
        lost = self._drafting(_PROBE_DEPTH, plain)
        if best or not self._may_probe(lost):
            return best
        self._lost_seconds += lost
        return _PROBE_DEPTH

    def _drafting(self, depth: int, plain: float) -> float:
        """What drafting models take for so many tokens of each sequence, in seconds."""
        return self._draft_costs.seconds(depth) or depth * _ASSUMED_SHARE * plain

    def _speed_of(self, trees: list[DraftTree], num_sequences: int) -> float:
        """Expected tokens per second with what is drafted so far."""
        num_kept, gain = self._best_count(trees, num_sequences)
        seconds = self._costs.seconds(num_sequences + num_kept)
        seconds += self._overhead.seconds(1) if num_kept else 0.0
        return (num_sequences + gain) / seconds if seconds else 0.0

    # -- choosing ---------------------------------------------------------------------------------

    def _num_worth_it(self, trees: list[DraftTree], num_sequences: int) -> int:
        """How many of all drafted nodes, the likeliest, are computed."""
        num_nodes = sum(tree.num_drafted for tree in trees)
        if not self.is_adaptive or not num_nodes:
            return num_nodes
        num_kept, _ = self._best_count(trees, num_sequences)
        if num_kept:
            return num_kept
        count = min(num_nodes, 2 * len(trees))
        lost = self._costs.seconds(num_sequences + count) - self._costs.seconds(num_sequences)
        if not self._may_probe(lost):
            return 0
        self._lost_seconds += max(lost, 0.0)
        return count

    def _best_count(self, trees: list[DraftTree], num_sequences: int) -> tuple[int, float]:
        """The number of nodes that makes tokens per second largest, and the sum of their chances."""
        chances = sorted((chance for tree in trees for chance in tree.chances[1:]), reverse=True)
        best, best_gain, gain = 0, 0.0, 0.0
        plain = self._costs.seconds(num_sequences)
        best_speed = _WORTH * num_sequences / plain if plain else 0.0
        overhead = self._overhead.seconds(1)
        most = self.num_tokens * len(trees)
        for count, chance in enumerate(chances[:most], 1):
            gain += chance
            seconds = overhead + self._costs.seconds(num_sequences + count)
            if num_sequences + gain > best_speed * seconds:
                best, best_gain, best_speed = count, gain, (num_sequences + gain) / seconds
        return best, best_gain

    def _may_probe(self, seconds: float) -> bool:
        return self._lost_seconds + max(seconds, 0.0) <= PROBE_SHARE * self._decode_seconds

    def _must_measure(self, num_rows: int) -> bool:
        """Whether this step shall be a plain one, to know what that costs."""
        if self.is_adaptive and (
            not self._costs.knows(num_rows) or self._steps_since_plain >= _REFRESH_STEPS
        ):
            self._steps_since_plain = 0
            return True
        return False

    def _rest(self, num_sequences: int) -> None:
        """Looking at the text in vain took time: leaves it for as many steps as keep that share small."""
        seconds = self._costs.seconds(num_sequences)
        if self.is_adaptive and seconds > 0:
            self._plain_steps_left = min(int(self._spent / (PROBE_SHARE * seconds)), _LONGEST_REST)
            self._decode_seconds += self._plain_steps_left * seconds  # which nobody will measure

    def _rates_of(self, sequence: Sequence) -> Acceptance:
        rates = self._rates.get(sequence)
        if rates is None:
            rates = self._rates[sequence] = Acceptance(self._common)
        return rates


def _may_draft(sequence: Sequence) -> bool:
    return (
        sequence.sampler is not None
        and sequence.group is None
        and sequence.state == "running"
        and sequence.num_pending_tokens == 1
        and sequence.num_computed_tokens >= sequence.num_prompt_tokens
        and sequence.num_tokens + 1 < sequence.max_tokens
    )


def _likeliest(trees: list[DraftTree], count: int, most: int) -> list[DraftTree]:
    """The `count` likeliest nodes of all trees together, of each no more than `most`."""
    if len(trees) == 1:
        return [trees[0].likeliest(min(count, most))]
    nodes = sorted(
        ((chance, -i) for i, tree in enumerate(trees) for chance in tree.chances[1:]), reverse=True
    )
    counts = [0] * len(trees)
    for _, index in nodes[:count]:
        counts[-index] += 1
    return [tree.likeliest(min(number, most)) for tree, number in zip(trees, counts, strict=True)]
