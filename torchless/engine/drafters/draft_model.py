"""Drafts by a second, smaller model with the same vocabulary.

It keeps keys and values of its own for each sequence and catches up with what was accepted since it was last asked: the
tokens that it computed and that were kept stay, those behind the first that was not are computed again. All sequences
are drafted together, one token of each in a step.
(Y. Leviathan et al., "Fast inference from Transformers via speculative decoding", 2023.)
"""

from __future__ import annotations

from bisect import bisect

import numpy as np
import numpy.typing as npt

from torchless.backends.base import Batch, Best, Executor
from torchless.engine.drafters import DrafterContext, Guess
from torchless.engine.pages import PageAllocator
from torchless.engine.scheduler import pages_for
from torchless.engine.sequence import Sequence
from torchless.errors import InvalidRequestError

__all__ = ["DraftModel", "build"]

_NUM_BEST = 3
_TAIL = 64
"""Tokens that are compared to see which were kept. More are taken back at once only together with these."""
_GAPS = (0.5, 1.0, 2.0, 3.0, 5.0)
"""How sure the model is: bounds between which the distance of its two largest logits is sorted."""

_DOUBTFUL = 1  # the last of these sorts in which other tokens than the best are guessed, too

_SOURCES = [("draft model", bucket) for bucket in range(len(_GAPS) + 1)]
_OTHER_SOURCES = {
    (rank, bucket): (f"draft model, guess {rank}", bucket)
    for rank in range(1, _NUM_BEST)
    for bucket in range(len(_GAPS) + 1)
}


def build(context: DrafterContext) -> DraftModel:
    """The drafter. Raises InvalidRequestError where there is no second model."""
    if context.draft_model is None:
        raise InvalidRequestError(
            "speculative='draft' needs a second model: name one with draft_model (--draft-model)"
        )
    return DraftModel(context.draft_model, context.context_length, context.num_token_ids)


class _Track:
    """How far the second model has come with a sequence: tokens whose keys and values it has, and its pages."""

    __slots__ = ("num_computed", "page_ids", "tokens")

    def __init__(self) -> None:
        self.tokens = np.empty(64, np.int32)
        self.num_computed = 0
        self.page_ids: list[int] = []

    def set_tokens(self, begin: int, token_ids: npt.NDArray[np.int32] | list[int]) -> None:
        """Notes tokens from a position on."""
        end = begin + len(token_ids)
        if end > len(self.tokens):
            larger = np.empty(2 * end, np.int32)
            larger[: len(self.tokens)] = self.tokens
            self.tokens = larger
        self.tokens[begin:end] = token_ids


class DraftModel:
    """A `Drafter` over an executor of its own, which it closes.

    Args:
        executor: of the second model; its pages are this drafter's alone.
        context_length: longer sequences are not drafted.
        num_token_ids: of the model that is drafted for; None if it has as many as this one.
    """

    is_free = False

    def __init__(self, executor: Executor, context_length: int, num_token_ids: int | None = None) -> None:
        self.executor = executor
        self.num_token_ids = num_token_ids or executor.vocab_size
        self.context_length = context_length
        self.pages = PageAllocator(executor.options.num_pages)
        self._tracks: dict[Sequence, _Track] = {}  # the one that was asked for last comes last

    def draft(self, sequences: list[Sequence], num_tokens: int, width: int) -> list[list[Guess]]:
        """See `Drafter`."""
        guesses: list[list[Guess]] = [[] for _ in sequences]
        options = self.executor.options
        most = min(options.max_outputs, options.max_batch_tokens)
        places = [i for i, sequence in enumerate(sequences) if self._prepare(sequence, num_tokens)][:most]
        # Making room for a later one may have cost an earlier one its pages.
        places = [i for i in places if sequences[i] in self._tracks]
        if places:
            try:
                found = self._guess([sequences[i] for i in places], num_tokens, min(width, _NUM_BEST))
            except BaseException:  # what the pages hold is in doubt
                for i in places:
                    self.forget(sequences[i])
                raise
            for i, guess in zip(places, found, strict=True):
                guesses[i] = guess
        return guesses

    def forget(self, sequence: Sequence) -> None:
        """See `Drafter`."""
        track = self._tracks.pop(sequence, None)
        if track is not None and track.page_ids:
            self.pages.free(track.page_ids)
            self.executor.release_pages(np.array(track.page_ids, np.int32))

    def close(self) -> None:
        """See `Drafter`."""
        self._tracks.clear()
        self.executor.close()

    # -- keeping up -------------------------------------------------------------------------------

    def _prepare(self, sequence: Sequence, num_tokens: int) -> bool:
        """Takes back what the sequence did not keep and finds pages for what comes; False where that is impossible."""
        needed = sequence.num_tokens + num_tokens
        if needed > self.context_length:
            return False
        track = self._tracks.pop(sequence, None) or _Track()
        self._tracks[sequence] = track
        end = min(track.num_computed, sequence.num_tokens - 1)
        tail = max(end - _TAIL, 0)
        if (track.tokens[tail:end] != sequence.tokens[tail:end]).any():
            end = int((track.tokens[:end] != sequence.tokens[:end]).argmax())
        track.num_computed = end
        if self.executor.vocab_size < self.num_token_ids:
            new = sequence.tokens[track.num_computed : sequence.num_tokens]
            if new.max() >= self.executor.vocab_size:
                return False
        missing = pages_for(needed) - len(track.page_ids)
        while self.pages.num_free < missing and len(self._tracks) > 1:
            self.forget(next(iter(self._tracks)))
        if self.pages.num_free < missing:
            self.forget(sequence)
            return False
        track.page_ids += self.pages.alloc(max(missing, 0))
        return True

    def _guess(self, sequences: list[Sequence], num_tokens: int, width: int) -> list[list[Guess]]:
        tracks = [self._tracks[sequence] for sequence in sequences]
        share = max(self.executor.options.max_batch_tokens // len(sequences), 1)
        for sequence, track in zip(sequences, tracks, strict=True):
            self._catch_up(sequence, track, share)
        rows = [
            sequence.tokens[track.num_computed : sequence.num_tokens]
            for sequence, track in zip(sequences, tracks, strict=True)
        ]
        count = max(width, 2)
        batch = _batch(tracks, rows, num_tokens)
        if count <= self.executor.max_best(len(rows)):
            best = self.executor.step_chain(batch, count, num_tokens)
        else:  # no chain of a model that keeps no best logits: one token
            best = _best_of(self.executor.step(batch), count)
        for i, (sequence, track, ids) in enumerate(zip(sequences, tracks, rows, strict=True)):
            track.set_tokens(track.num_computed, ids)
            track.set_tokens(sequence.num_tokens, best.ids[:-1, i, 0])
            track.num_computed += len(ids) + len(best.ids) - 1
        return [_guesses(best, i, width, self.num_token_ids) for i in range(len(sequences))]

    def _catch_up(self, sequence: Sequence, track: _Track, most_left: int) -> None:
        """Computes a sequence's tokens but for the last `most_left` at most."""
        chunk = self.executor.options.max_batch_tokens
        while sequence.num_tokens - track.num_computed > most_left:
            end = min(track.num_computed + chunk, sequence.num_tokens - 1)
            ids = sequence.tokens[track.num_computed : end]
            self.executor.step(_batch([track], [ids], 0))
            track.set_tokens(track.num_computed, ids)
            track.num_computed = end


def _batch(tracks: list[_Track], rows: list[npt.NDArray[np.int32]], num_steps: int) -> Batch:
    """The next tokens of each, with pages for so many steps; the last of each gives logits, if there are steps."""
    if len(tracks) == 1:
        (track,), (ids,) = tracks, rows
        first, count = track.num_computed, len(ids)
        table = track.page_ids[: pages_for(first + count + max(num_steps - 1, 0))]
        return Batch(
            ids,
            np.arange(first, first + count, dtype=np.int32),
            np.array([0, count], np.int32),
            np.array(table, np.int32),
            np.array([0, len(table)], np.int32),
            np.array([count - 1] if num_steps else [], np.int32),
        )
    lengths = [len(ids) for ids in rows]
    starts = np.cumsum([0, *lengths], dtype=np.int32)
    tables = [
        track.page_ids[: pages_for(track.num_computed + length + max(num_steps - 1, 0))]
        for track, length in zip(tracks, lengths, strict=True)
    ]
    places = [
        np.arange(track.num_computed, track.num_computed + length, dtype=np.int32)
        for track, length in zip(tracks, lengths, strict=True)
    ]
    return Batch(
        np.concatenate(rows),
        np.concatenate(places),
        starts,
        np.array([page for table in tables for page in table], np.int32),
        np.cumsum([0, *map(len, tables)], dtype=np.int32),
        starts[1:] - 1 if num_steps else np.empty(0, np.int32),
    )


def _guesses(best: Best, run: int, width: int, num_token_ids: int) -> list[Guess]:
    """The chain of the best tokens, and the same up to a point where the next best one is taken instead."""
    ids: list[list[int]] = best.ids[:, run].tolist()
    logits: list[list[float]] = best.logits[:, run].tolist()
    buckets = [bisect(_GAPS, row[0] - row[1]) for row in logits]
    chain = [row[0] for row in ids]
    sources = [_SOURCES[bucket] for bucket in buckets]
    guesses = [Guess(chain, sources)]
    for depth, bucket in enumerate(buckets):
        if bucket > _DOUBTFUL:
            continue
        for rank in range(1, width):
            other = _OTHER_SOURCES[rank, bucket]
            guesses.append(Guess([*chain[:depth], ids[depth][rank]], [*sources[:depth], other]))
    if max(map(max, ids)) >= num_token_ids:  # padding of a larger table
        guesses = [guess for guess in guesses if max(guess.token_ids) < num_token_ids]
    return guesses


def _best_of(logits: npt.NDArray[np.float32], count: int) -> Best:
    """The largest logits of each row, of one step."""
    ids = np.argpartition(-logits, count, axis=1)[:, :count]
    values = np.take_along_axis(logits, ids, axis=1)
    order = (-values).argsort(axis=1, kind="stable")
    best_ids = np.take_along_axis(ids, order, axis=1).astype(np.int32)
    return Best(best_ids[None], np.take_along_axis(values, order, axis=1)[None])
