"""Text to token ids and back, for tokenizers described by GGUF metadata or by a Hugging Face folder."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torchless.errors import TokenizerError
from torchless.text.infill import InfillFormat, find_infill_format, no_infill
from torchless.text.pieces import PIECE_BYTES

__all__ = ["Tokenizer", "TokenizerSpec"]

# Of these none grows together with the text behind it, in any vocabulary that is known; SentencePiece's own trick.
_ANCHORS = ("\u263a", "\n", "\x01")


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """Everything about a tokenizer but the merging itself.

    Attributes:
        kind: how tokens write their bytes: ``"byte-level"`` letters, ``"sentencepiece"``, or ``"wordpiece"``.
        pre: name of the pre-tokenizer, where one is known by name.
        num_tokens: size of the vocabulary.
        special_ids: ids by role: ``bos``, ``eos``, ``eot``, ``unknown``, ``padding``, ...
        end_ids: ids after which generation ends.
        prefix_ids, suffix_ids: put around a text by default.
        pair_ids: put between two texts that a model compares.
        strip_leading_space: whole texts were encoded with a space in front, which decoding takes away again.
        templates: chat templates by name.
        raw_tokens: bytes of tokens whose text is not UTF-8.
        missing_bytes: bytes of UTF-8 that no token stands for.
    """

    kind: Literal["byte-level", "sentencepiece", "wordpiece"]
    pre: str | None
    num_tokens: int
    special_ids: Mapping[str, int]
    end_ids: frozenset[int]
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    pair_ids: tuple[int, ...] = ()
    strip_leading_space: bool = False
    templates: Mapping[str, str] = field(default_factory=dict)
    raw_tokens: Mapping[int, bytes] = field(default_factory=dict)
    missing_bytes: frozenset[int] = frozenset()


class Tokenizer:
    """Encodes text and decodes ids. Safe to use from several threads.

    Attributes:
        vocab_size: number of tokens.
        bos_id, eos_id, unknown_id: None where the model has none.
        bos_token, eos_token: their texts, as chat templates write them.
        eos_ids: every id after which generation ends (end of text, of turn, of message).
        special_ids: control tokens, which decode to nothing.
        added_tokens: the tokens that are found in a text as they stand, as the library describes them, by id.
        chat_template: source of the main chat template, None where the model has none.
        chat_templates: all chat templates by name, the main one as ``"default"``.
        infill: how the model is asked to fill a gap, None where it was not trained to.

    Example:
        >>> letters = ["<unk>", "<s>", "</s>", "\u2581", "h", "i", "hi", "\u2581hi"]
        >>> metadata = {
        ...     "tokenizer.ggml.model": "llama",
        ...     "tokenizer.ggml.tokens": letters,
        ...     "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -1.0, -2.0],
        ...     "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1, 1],
        ... }
        >>> tokenizer = Tokenizer.from_metadata(metadata)
        >>> tokenizer.encode("hi")
        [1, 7]
        >>> tokenizer.decode([1, 7])
        'hi'
    """

    def __init__(self, library_tokenizer: Any, spec: TokenizerSpec) -> None:
        """Use `from_metadata` or `from_folder`; this takes a ready `tokenizers.Tokenizer`."""
        library_tokenizer.no_truncation()
        library_tokenizer.no_padding()
        self._library = library_tokenizer
        self._lock = threading.Lock()  # The library keeps "parse special tokens" as state.
        self._spec = spec
        self._bytes_of = PIECE_BYTES[spec.kind]
        self._pieces: dict[int, bytes] = {}
        self.added_tokens: Mapping[int, Any] = library_tokenizer.get_added_tokens_decoder()
        added = self.added_tokens
        self._added_texts = {index: str(token.content) for index, token in added.items()}
        self.special_ids = frozenset(index for index, token in added.items() if token.special)
        self.vocab_size = spec.num_tokens
        self.bos_id = spec.special_ids.get("bos")
        self.eos_id = spec.special_ids.get("eos")
        self.unknown_id = spec.special_ids.get("unknown")
        self.bos_token = None if self.bos_id is None else self.id_to_token(self.bos_id)
        self.eos_token = None if self.eos_id is None else self.id_to_token(self.eos_id)
        self.eos_ids = spec.end_ids
        self.chat_templates = dict(spec.templates)
        self.chat_template = self.chat_templates.get("default")
        self.infill = find_infill_format(spec.special_ids, self._added_texts)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], *, cache_key: str | None = None) -> Tokenizer:
        """Builds the tokenizer that GGUF metadata describes.

        Args:
            metadata: the ``tokenizer.*`` keys of a GGUF file.
            cache_key: identifies the metadata, if the caller knows a cheaper way than a hash of all of it.

        Raises:
            FormatError: the metadata is incomplete or contradicts itself.
            UnsupportedError: an unknown tokenizer model or pre-tokenizer.
        """
        from torchless.text.tokenizer_gguf import tokenizer_from_metadata

        return cls(*tokenizer_from_metadata(metadata, cache_key))

    @classmethod
    def from_folder(cls, path: str | Path) -> Tokenizer:
        """Reads the tokenizer of a Hugging Face folder: ``tokenizer.json``, else ``tokenizer.model``.

        Raises:
            FormatError: a file is broken, or there is no tokenizer in the folder.
            UnsupportedError: a kind of tokenizer that torchless does not know.
        """
        from torchless.text.tokenizer_folder import tokenizer_from_folder

        return cls(*tokenizer_from_folder(Path(path)))

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: any string without lone surrogates.
            add_special_tokens: put BOS in front and EOS behind where the model wants them. Leave it out for a
                rendered chat template, which writes its own.
            parse_special: read the texts of control tokens (``<|im_end|>``) as these tokens. Leave it out for
                text from strangers: it then cannot end a turn. User-defined tokens are always read.

        Raises:
            TokenizerError: not a string, a lone surrogate, or a character the vocabulary has no tokens for.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"expected a string to encode, found {type(text).__name__}")
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"the text has a lone surrogate {text[error.start]!r} at position {error.start}, which is no "
                f"character; decode the input as UTF-8 with errors='replace' first"
            ) from None
        if self._spec.missing_bytes and self._spec.missing_bytes.intersection(data):
            self._refuse_missing(text)
        with self._lock:
            self._library.encode_special_tokens = not parse_special
            ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return [*self._spec.prefix_ids, *ids, *self._spec.suffix_ids] if add_special_tokens else ids

    def encode_infill(
        self, prefix: str, suffix: str, *, order: str | None = None, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text with a gap, up to where the gap is to be filled; BOS in front where the model wants it.

        The text behind the gap gets no space in front, which SentencePiece puts before whole texts.

        Args:
            prefix, suffix: the text before and behind the gap; either may be empty.
            order: ``"psm"``, ``"spm"`` or ``"spm2"`` (see `infill.InfillFormat.arrange`); None is the model's own.
            parse_special: as in `encode`.

        Raises:
            UnsupportedError: the model was not trained to fill gaps.
            InvalidRequestError: an order that the model cannot be asked in.
            TokenizerError: as in `encode`.
        """
        if self.infill is None:
            raise no_infill()
        before = self.encode(prefix, add_special_tokens=False, parse_special=parse_special)
        behind = self.encode_behind(suffix, parse_special=parse_special)
        return [*self._spec.prefix_ids, *self.infill.arrange(before, behind, order)]

    @property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Ids that the model wants before a text, between two texts that it compares, and behind a text."""
        return self._spec.prefix_ids, self._spec.pair_ids, self._spec.suffix_ids

    def decode(
        self, ids: Iterable[int], *, skip_special_tokens: bool = True, continuation: bool = False
    ) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD.

        Args:
            ids: token ids.
            skip_special_tokens: leave control tokens out instead of writing their texts.
            continuation: the ids follow a text, so that a space in front of them is part of the text.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        text = b"".join(self.token_bytes(index, special=not skip_special_tokens) for index in ids)
        if self._spec.strip_leading_space and not continuation:
            text = text.removeprefix(b" ")
        return text.decode("utf-8", "replace")

    @property
    def strips_leading_space(self) -> bool:
        """Whether `decode` takes one space away in front of a whole text (SentencePiece's rule)."""
        return self._spec.strip_leading_space

    def token_bytes(self, token_id: int, *, special: bool = False) -> bytes:
        """The bytes that a token adds to a text: none for control tokens, their text if `special`.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        piece = self._pieces.get(token_id)
        if piece is None:
            piece = self._pieces[token_id] = self._read_piece(self._check(token_id))
        return b"" if not special and token_id in self.special_ids else piece

    def token_to_id(self, text: str) -> int | None:
        """The id of the token with exactly this text, None where there is none."""
        try:
            index: int | None = self._library.token_to_id(text)
        except (TypeError, UnicodeEncodeError):
            return None
        return index

    def id_to_token(self, token_id: int) -> str:
        """A token's text as the vocabulary writes it (``\u0120Hello``, ``\u2581Hello``, ``<0x0A>``).

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        text: str | None = self._library.id_to_token(self._check(token_id))
        return f"[token {token_id}]" if text is None else text

    def describe(self) -> dict[str, Any]:
        """What a user may want to see of a tokenizer: plain values, in a fixed order."""
        named = {
            role: {"id": index, "text": self.id_to_token(index)}
            for role, index in self._spec.special_ids.items()
        }
        ends = [{"id": index, "text": self.id_to_token(index)} for index in sorted(self.eos_ids)]
        return {
            "kind": self._spec.kind,
            "pre_tokenizer": self._spec.pre,
            "vocab_size": self.vocab_size,
            "special_tokens": named,
            "end_tokens": ends,
            "prefix_ids": list(self._spec.prefix_ids),
            "suffix_ids": list(self._spec.suffix_ids),
            "num_control_tokens": len(self.special_ids),
            "infill": None if self.infill is None else self._describe_infill(self.infill),
            "chat_templates": sorted(self.chat_templates),
        }

    def _shown(self, index: int) -> dict[str, Any]:
        return {"id": index, "text": self.id_to_token(index)}

    def _describe_infill(self, infill: InfillFormat) -> dict[str, Any]:
        return {"order": infill.order, **{role: self._shown(index) for role, index in infill.ids.items()}}

    def encode_behind(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Ids of a text that goes on after another: as if something stood in front of it."""
        if not self._spec.strip_leading_space:
            return self.encode(text, add_special_tokens=False, parse_special=parse_special)
        for anchor in _ANCHORS:
            front = self.encode(anchor, add_special_tokens=False)
            ids = self.encode(anchor + text, add_special_tokens=False, parse_special=parse_special)
            if ids[: len(front)] == front:
                return ids[len(front) :]
        raise TokenizerError(f"no way to encode {text[:40]!r} without a space in front was found")

    def _check(self, token_id: int) -> int:
        try:
            index = operator.index(token_id)
        except TypeError:
            raise TokenizerError(f"a token id is an integer, found {token_id!r}") from None
        if not 0 <= index < self.vocab_size:
            raise TokenizerError(f"token id {index} is not in the vocabulary (0 to {self.vocab_size - 1})")
        return index

    def _read_piece(self, index: int) -> bytes:
        if index in self._spec.raw_tokens:
            return self._spec.raw_tokens[index]
        if index in self._added_texts:
            text = self._added_texts[index]
            return (text.replace("\u2581", " ") if self._spec.kind == "sentencepiece" else text).encode()
        found: str | None = self._library.id_to_token(index)
        return b"" if found is None else self._bytes_of(found)

    def _refuse_missing(self, text: str) -> None:
        if self._library.normalizer is not None:
            text = self._library.normalizer.normalize_str(text)
        for position, character in enumerate(text):
            if self._spec.missing_bytes.intersection(character.encode()):
                raise TokenizerError(
                    f"the character {character!r} at position {position} cannot be encoded: the vocabulary "
                    f"has no token for one of its bytes"
                )
