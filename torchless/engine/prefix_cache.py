"""The prefix cache: which pages hold the keys and values of which tokens, so that nobody computes them twice.

Keys and values of a token depend on it and on all tokens before it, and on nothing else: not on the chunks in which a
prompt was computed, nor on neighbours in a batch. So a page that is full is known by the tokens of its sequence up to
its end, and whoever begins with the same ones shares it. What it is known by is a *chain key*: a hash of the chain key
of the page before it and of its own tokens, so that equal keys mean equal beginnings. In fast mode it also covers how
many of the tokens were computed in fast arithmetic.

Only full pages of computed tokens are shared, and nobody writes to those: drafted tokens, and the next ones, lie behind
them. A fork is therefore two sequences that share pages up to the last full one.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from torchless.backends.base import PAGE_TOKENS
from torchless.engine.fast_tokens import num_fast_tokens
from torchless.engine.kept_states import KeptStates
from torchless.engine.page_file import KEY_BYTES
from torchless.engine.pages import PageAllocator
from torchless.engine.sequence import Sequence
from torchless.engine.stored_pages import StoredPages

__all__ = ["PrefixCache"]

_INTERVAL_PAGES = 8  # while a sequence generates, states so far apart stay


class PrefixCache:
    """The pages of one engine by chain key.

    A page is *published* once all its tokens are computed. It stays when its owners leave, until a page is needed
    and none is empty: the one that was used the longest ago goes, and later pages of a sequence go before
    earlier ones, without which they could not be found.

    Args:
        pages: the engine's; evictions are reported here.
        is_fast: prompts are computed in fast arithmetic (`fast_tokens`).
        stored: pages on disk, where published ones are written and missing ones are looked for.
        states: of models with recurrent state, which go on only where theirs was kept; None for others.

    Attributes:
        num_cached_tokens: tokens that sequences found here instead of computing them, so far.
        num_restored_tokens: of those, the ones that came from disk.
    """

    def __init__(
        self,
        pages: PageAllocator,
        *,
        is_fast: bool = False,
        stored: StoredPages | None = None,
        states: KeptStates | None = None,
    ) -> None:
        self.num_cached_tokens = self.num_restored_tokens = 0
        self._pages = pages
        self._is_fast = is_fast
        self._stored = stored
        self._states = states
        self._seed = b"" if stored is None else stored.store.fingerprint
        self._page_of: dict[bytes, int] = {}  # a page's key stands behind that of the page before it
        self._key_of: dict[int, bytes] = {}
        pages.on_evict = self._forget

    @property
    def kept_ids(self) -> list[int]:
        """All published pages, those of a sequence from its end to its beginning."""
        return list(reversed(self._page_of.values()))

    def begin_step(self) -> None:
        """A step is put together."""
        if self._stored is not None:
            self._stored.begin_step()

    def attach(self, sequence: Sequence, *, may_pause: bool = False) -> bool:
        """Gives a sequence the published pages that come next in it, in place of computing their tokens.

        One token is always left to compute, for its logits. A sequence that wants all of them gets nothing.

        Args:
            may_pause: reading from disk may stop after some pages, so that others do not wait.

        Returns:
            Whether it stopped so: the rest comes before the next step.
        """
        end = _end(sequence)
        if sequence.num_pages >= end:
            return False
        keys = self._keys(sequence, end)
        if self._states is not None:
            end = self._restore_state(sequence, keys[:end], self._states)
        while sequence.num_pages < end:
            number = sequence.num_pages
            page = self._page_of.get(keys[number])
            if page is not None:
                self._pages.share(page)
                if self._stored is not None:
                    self._stored.save(page, keys, number)
            elif self._stored is None or sequence.is_not_stored:
                return False
            elif may_pause and self._stored.is_tired:
                return True
            else:
                page = self._restore(sequence, keys[number])
                if page is None:
                    return False
                self.num_restored_tokens += PAGE_TOKENS
            sequence.add_pages([page])  # from here on the table says who owns it: see `Scheduler.recover`
            sequence.num_computed_tokens += PAGE_TOKENS
            sequence.num_published_pages += 1
            self.num_cached_tokens += PAGE_TOKENS
            if not sequence.num_preemptions and sequence.num_tokens == sequence.num_prompt_tokens:
                sequence.num_cached_tokens += PAGE_TOKENS
        return False

    @property
    def keeps_states(self) -> bool:
        """Whether runs shall end where a page does, so that the state there can be kept."""
        return self._states is not None

    def keep_state(self, sequence: Sequence) -> None:
        """Keeps the state of a sequence that has come to the end of a page.

        While it generates the last such state takes the place of the one before, but for some at intervals.
        """
        states, position = self._states, sequence.num_computed_tokens
        number = position // PAGE_TOKENS
        if states is None or position % PAGE_TOKENS or not 0 < number == sequence.num_published_pages:
            return
        key = self._keys(sequence, number)[number - 1]
        states.save(key, sequence.state_slot)
        if position > sequence.num_prompt_tokens:
            before = sequence.kept_state
            if before not in (b"", key) and number % _INTERVAL_PAGES != 1:
                states.forget(before)
            sequence.kept_state = key

    def is_coming(self, sequence: Sequence, older: Iterable[Sequence]) -> bool:
        """Whether an older sequence computes the sequence's next page, so that it is faster to wait for it."""
        end = _end(sequence) if self._states is None else 0
        return sequence.num_pages < end and self._num_coming(sequence, sequence.num_pages, end, older) > 0

    def num_ahead(self, sequence: Sequence, older: Iterable[Sequence]) -> int:
        """Of the pages that a sequence will need for the tokens it has: those that nobody has to give up for it.

        They have an owner, or an older sequence is about to compute them.
        """
        number, end = 0, _end(sequence) if self._states is None else 0
        keys = self._keys(sequence, end) if sequence.num_pages < end else []
        for j in range(sequence.num_pages, end):
            page = self._page_of.get(keys[j])
            if page is None:
                return number + self._num_coming(sequence, j, end, older)
            number += self._pages.num_owners(page) > 0
        return number

    def publish(self, sequence: Sequence) -> list[int]:
        """Makes the pages known that a sequence has filled since the last call.

        Where another sequence was faster with the same tokens, its page takes the place of this one's.

        Returns:
            The pages that are empty now.
        """
        end = sequence.num_computed_tokens // PAGE_TOKENS
        emptied: list[int] = []
        if sequence.num_published_pages >= end:
            return emptied
        keys = self._keys(sequence, end)
        for j in range(sequence.num_published_pages, end):
            page = int(sequence.page_ids[j])
            found = self._page_of.get(keys[j])
            if found is None:
                self._enter(keys[j], page)
                if self._stored is not None:
                    self._stored.save(page, keys, j)
            elif found != page:
                self._pages.share(found)
                sequence.page_ids[j] = found
                emptied += self._pages.free([page])
            sequence.num_published_pages = j + 1
        return emptied

    def recover(self) -> None:
        """Makes the two tables agree again after an interruption: what is in one alone is forgotten."""
        pairs = [(key, page) for key, page in self._page_of.items() if self._key_of.get(page) == key]
        self._page_of = dict(pairs)
        self._key_of = {page: key for key, page in pairs}

    # -- chains -----------------------------------------------------------------------------------

    def _keys(self, sequence: Sequence, count: int) -> list[bytes]:
        """The chain keys of a sequence's pages, of its first `count` at least, which must be full."""
        keys = sequence.page_keys
        for j in range(len(keys), count):
            tokens = sequence.tokens[j * PAGE_TOKENS : (j + 1) * PAGE_TOKENS]
            num_fast = num_fast_tokens(sequence) if self._is_fast else 0
            digest = blake2b(keys[j - 1] if j else self._seed, digest_size=KEY_BYTES)
            digest.update(tokens.astype("<i4", copy=False).data)
            digest.update(bytes([min(max(num_fast - j * PAGE_TOKENS, 0), PAGE_TOKENS)]))
            keys.append(digest.digest())
        return keys

    def _num_coming(self, sequence: Sequence, first: int, end: int, older: Iterable[Sequence]) -> int:
        """How many pages of a sequence, from `first` to `end`, one older sequence has yet to compute.

        One that wants all its logits is slow, and is not waited for.
        """
        for other in older:
            last = other.num_tokens // PAGE_TOKENS
            if not other.num_computed_tokens // PAGE_TOKENS <= first < last or other.wants_all_rows:
                continue
            keys, others = self._keys(sequence, end), self._keys(other, last)
            if keys[first] == others[first]:
                most = min(end, last)
                return next((j for j in range(first, most) if keys[j] != others[j]), most) - first
        return 0

    def _restore_state(self, sequence: Sequence, keys: list[bytes], states: KeptStates) -> int:
        """Puts the latest state that is kept into the slot of a sequence at its beginning; returns the pages before it.

        All of these are published.
        """
        if sequence.num_computed_tokens:
            return 0
        end = next((j for j, key in enumerate(keys) if key not in self._page_of), len(keys))
        while end and keys[end - 1] not in states:
            end -= 1
        if end:
            states.restore(keys[end - 1], sequence.state_slot, end * PAGE_TOKENS)
        return end

    def _restore(self, sequence: Sequence, key: bytes) -> int | None:
        """A page of the sequence's own with what is on disk; None where that is nothing, or no page is free."""
        assert self._stored is not None
        content = self._stored.read(key) if self._pages.num_free else None
        if content is None:
            sequence.is_not_stored = True
            return None
        (page,) = self._pages.alloc(1)
        self._stored.put(page, content)
        self._enter(key, page)
        return page

    def _enter(self, key: bytes, page: int) -> None:
        self._page_of[key] = page
        self._key_of[page] = key
        self._pages.keep(page)

    def _forget(self, page: int) -> None:
        del self._page_of[self._key_of.pop(page)]


def _end(sequence: Sequence) -> int:
    """The page up to which a sequence may take what others computed; 0 where that is nothing."""
    is_at_page_end = sequence.num_computed_tokens == sequence.num_pages * PAGE_TOKENS
    return (sequence.num_tokens - 1) // PAGE_TOKENS if is_at_page_end and not sequence.wants_all_rows else 0
