"""What llguidance must know of a vocabulary: the bytes of every token, and which tokens are no text."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from torchless.errors import TokenizerError, UnsupportedError
from torchless.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

__all__ = ["GrammarTokens", "import_llguidance"]

_SPECIAL_MARK = b"\xff"  # the library's; no byte of UTF-8


def import_llguidance() -> Any:
    """The library. Raises UnsupportedError where it is not installed."""
    try:
        import llguidance
    except ImportError:
        raise UnsupportedError(
            "output that follows a schema, an expression or a grammar needs the library llguidance: "
            "pip install 'torchless[constraints]'"
        ) from None
    return llguidance


class GrammarTokens:
    """A vocabulary as the library sees it. A second for a large one: made once for each model.

    Control tokens are marked, so that no text contains them; end tokens may come where a text is complete.

    Attributes:
        library: the library's object.
        vocab_size: bits of a mask.
        end_ids: tokens that end a text.
        has_stand_in: the vocabulary has no end token, and token `vocab_size` stands for one.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """Args: tokenizer: the model's; vocab_size: rows of its logits, which may be more than it has tokens."""
        llguidance = import_llguidance()
        self.vocab_size = vocab_size
        self.end_ids = frozenset(index for index in tokenizer.eos_ids if index < vocab_size)
        self.has_stand_in = not self.end_ids
        ends = sorted(self.end_ids) or [vocab_size]
        no_text = {*tokenizer.special_ids, *ends}
        num_known = min(vocab_size, tokenizer.vocab_size)
        pieces = [_bytes_of(tokenizer, index) for index in range(num_known)]
        pieces += [b""] * (vocab_size + self.has_stand_in - num_known)
        table = _Table(tokenizer, pieces, sorted(no_text), ends[0])
        self.library: LLTokenizer = llguidance.LLTokenizer(table, eos_token=ends)


class _Table:
    """The form in which the library takes a vocabulary. It knows nothing of the library's object, which keeps it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self, tokenizer: Tokenizer, tokens: list[bytes], special_token_ids: list[int], eos_token_id: int
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = special_token_ids
        self.eos_token_id = eos_token_id
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """The tokens of a text within an answer; the library asks for text that its grammar leaves no choice about."""
        try:
            ids = self._tokenizer.encode_behind(text)
        except TokenizerError:
            ids = []
        known = len(self.tokens)
        if b"".join(self.tokens[index] for index in ids if index < known) == text.encode():
            return ids
        return self._longest_first(text.encode())  # the tokenizer normalises, or has no token for a character

    def _longest_first(self, data: bytes) -> list[int]:
        """Tokens of these bytes, each as long as can be; ends where no token goes on."""
        by_bytes, longest = self._by_bytes
        ids: list[int] = []
        start = 0
        while start < len(data):
            ends = range(min(start + longest, len(data)), start, -1)
            end = next((end for end in ends if data[start:end] in by_bytes), start)
            if end == start:
                break
            ids.append(by_bytes[data[start:end]])
            start = end
        return ids

    @cached_property
    def _by_bytes(self) -> tuple[dict[bytes, int], int]:
        no_text = set(self.special_token_ids)
        by_bytes = {piece: index for index, piece in enumerate(self.tokens) if piece and index not in no_text}
        return by_bytes, max(map(len, by_bytes), default=1)


def _bytes_of(tokenizer: Tokenizer, index: int) -> bytes:
    piece = tokenizer.token_bytes(index, special=True)
    return b"" if piece.startswith(_SPECIAL_MARK) else piece
