"""The state of one constrained sequence. Masks that take long are computed in a thread beside the engine's steps.

Most take some ten microseconds, less than it costs to hand them to a thread: those are computed where they are asked
for. What the last one took decides, so that of a run of long masks the first alone is waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from torchless.constraints.constraint import Mask
from torchless.constraints.grammars import Grammar
from torchless.constraints.tokens import GrammarTokens, import_llguidance
from torchless.errors import GrammarError, TorchlessError

if TYPE_CHECKING:
    from llguidance import LLMatcher

__all__ = ["Matcher", "MatcherPool"]

_MAX_KEPT = 32
_NUM_WORKERS = 2
_WORTH_A_THREAD_S = 1.5e-4
"""To wake a thread and to hear from it takes about 60 us, and more where all cores compute."""


class MatcherPool:
    """Compiled grammars of one model, and the threads that compute masks. Usable from several threads."""

    def __init__(self, tokens: GrammarTokens) -> None:
        self._tokens = tokens
        self._compiled: dict[str, LLMatcher] = {}  # oldest first
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(_NUM_WORKERS, thread_name_prefix="torchless-mask")

    def matcher(self, grammar: Grammar, more_end_ids: Collection[int] = ()) -> Matcher:
        """A constraint at its start.

        Args:
            grammar: what the text must match.
            more_end_ids: tokens that end this answer beside the model's own.

        Raises:
            GrammarError: the library cannot enforce it.
        """
        with self._lock:
            compiled = self._compiled.pop(grammar.text, None) or compile_grammar(self._tokens, grammar)
            self._compiled[grammar.text] = compiled
            if len(self._compiled) > _MAX_KEPT:
                del self._compiled[next(iter(self._compiled))]
            library = compiled.deep_copy()
        matcher = Matcher(
            library, self._tokens, self._workers, frozenset(more_end_ids) - self._tokens.end_ids
        )
        matcher.prepare()  # beside the prompt
        return matcher

    def close(self) -> None:
        """Ends the threads."""
        self._workers.shutdown(wait=False, cancel_futures=True)


def compile_grammar(tokens: GrammarTokens, grammar: Grammar) -> LLMatcher:
    """The library's matcher. Raises GrammarError with the reason where it refuses the grammar."""
    compiled: LLMatcher = import_llguidance().LLMatcher(tokens.library, grammar.text, log_level=0)
    if compiled.is_error():
        raise grammar.refusal(compiled.get_error())
    return compiled


class Matcher:
    """Follows the contract of `constraint.Constraint`. Belongs to the thread that steps the engine."""

    def __init__(
        self,
        library: LLMatcher,
        tokens: GrammarTokens,
        workers: ThreadPoolExecutor,
        more_end_ids: frozenset[int],
    ) -> None:
        """Use `MatcherPool.matcher`; takes over `library`, which holds the state."""
        self._library = library
        self._tokens = tokens
        self._workers = workers
        self._more_end_ids = more_end_ids
        self._words = np.zeros(-(-(tokens.vocab_size + tokens.has_stand_in) // 32), dtype=np.uint32)
        self._pending: Future[None] | None = None
        self._last_seconds = 1.0  # what the last mask took; the first one takes longest
        self._is_fresh = False  # `_words` is the mask of the next token
        self._num_foreign_ends = 0  # accepted tokens that the library was not told of

    @property
    def must_stop(self) -> bool:
        self._wait()
        return self._num_foreign_ends > 0 or self._library.is_stopped()

    @property
    def is_satisfied(self) -> bool:
        self._wait()
        return self._library.is_accepting()

    def prepare(self) -> None:
        if self._pending is None and not self._is_fresh and self._last_seconds > _WORTH_A_THREAD_S:
            try:
                self._pending = self._workers.submit(self._compute)
            except RuntimeError:  # the model is being closed
                return

    def mask(self) -> Mask:
        self._wait()
        if not self._is_fresh:
            self._compute()
        if self._library.is_error():
            raise GrammarError(f"the grammar became too complex to follow: {_first_line(self._library)}")
        return self._words[: -(-self._tokens.vocab_size // 32)]

    def accept(self, token_id: int) -> None:
        self._wait()
        self._is_fresh = False
        if token_id in self._more_end_ids:
            self._num_foreign_ends += 1
        elif not self._library.consume_token(token_id):
            raise GrammarError(f"token {token_id} does not follow the grammar: {_first_line(self._library)}")

    def rollback(self, num_tokens: int) -> None:
        self._wait()
        self._is_fresh = False
        foreign = min(num_tokens, self._num_foreign_ends)
        self._num_foreign_ends -= foreign
        if num_tokens > foreign and not self._library.rollback(num_tokens - foreign):
            raise GrammarError(f"{num_tokens} tokens cannot be taken back: {_first_line(self._library)}")

    def fork(self) -> Matcher:
        self._wait()
        copy = Matcher(self._library.deep_copy(), self._tokens, self._workers, self._more_end_ids)
        copy._num_foreign_ends, copy._last_seconds = self._num_foreign_ends, self._last_seconds
        return copy

    def _wait(self) -> None:
        """Until the worker is done: the library's object serves one thread at a time."""
        if self._pending is not None:
            self._pending.result()  # may be interrupted: forgotten only behind it
            self._pending = None

    def _compute(self) -> None:
        """The library's mask, and the end tokens that it does not know of."""
        words, tokens = self._words, self._tokens
        begin = time.perf_counter()
        self._library.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._last_seconds = time.perf_counter() - begin
        if tokens.has_stand_in:
            _set_bit(words, tokens.vocab_size, False)
        if self._more_end_ids and self._library.is_accepting():
            for index in self._more_end_ids:
                _set_bit(words, index, True)
        if not words.any() and not self._library.is_error():
            raise TorchlessError("no token of the vocabulary can go on with a text that the grammar wants")
        self._is_fresh = True


def _set_bit(words: Mask, index: int, value: bool) -> None:
    bit = np.uint32(1 << (index % 32))
    words[index // 32] = words[index // 32] | bit if value else words[index // 32] & ~bit


def _first_line(library: LLMatcher) -> str:
    return library.get_error().strip().partition("\n")[0][:200]
