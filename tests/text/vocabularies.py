"""Small vocabularies made by hand, as GGUF metadata."""

from __future__ import annotations

from typing import Any

# GPT-2's letters of the 256 bytes, written out from their definition: printable Latin-1 stands for itself.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
LETTERS = [chr(byte) if byte in PRINTABLE else chr(256 + OTHERS.index(byte)) for byte in range(256)]


def bpe_metadata(
    merges: list[str] | None = None, special: dict[str, int] | None = None, pre: str | None = "gpt-2"
) -> dict[str, Any]:
    """A byte-level vocabulary: 256 letters, the results of `merges`, then `special` tokens with types."""
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w"] if merges is None else merges
    tokens = [*LETTERS, *(merge.replace(" ", "") for merge in merges)]
    types = [1] * len(tokens)
    for text, kind in (special or {}).items():
        tokens.append(text)
        types.append(kind)
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }
    if pre is not None:
        metadata["tokenizer.ggml.pre"] = pre
    return metadata


def spm_metadata(
    pieces: list[str], special: dict[str, int] | None = None, byte_tokens: bool = True, **more: Any
) -> dict[str, Any]:
    """A SentencePiece vocabulary: unknown, BOS, EOS, bytes, `special` with types, then pieces, best first."""
    tokens, types, scores = ["<unk>", "<s>", "</s>"], [2, 3, 3], [0.0, 0.0, 0.0]
    if byte_tokens:
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        types += [6] * 256
        scores += [0.0] * 256
    for text, kind in (special or {}).items():
        tokens.append(text)
        types.append(kind)
        scores.append(-1000.0)
    for rank, piece in enumerate(pieces):
        tokens.append(piece)
        types.append(1)
        scores.append(-float(rank))
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
    }
    return {**metadata, **{f"tokenizer.ggml.{key}": value for key, value in more.items()}}
