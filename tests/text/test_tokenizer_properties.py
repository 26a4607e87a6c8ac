"""Merging, compared with slow twins written from the definition, on random vocabularies and texts."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import LETTERS, bpe_metadata, spm_metadata

from torchless.text.tokenizer import Tokenizer


def merge_by_score(symbols: list[str], scores: dict[str, float]) -> list[str]:
    """SentencePiece's rule, word for word: join the pair whose union scores best, the leftmost of equals."""
    while True:
        pairs = [(scores[a + b], -i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
        if not pairs:
            return symbols
        index = -max(pairs)[1]
        symbols[index : index + 2] = [symbols[index] + symbols[index + 1]]


def merge_by_rank(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """BPE's rule: join the pair with the lowest rank, the leftmost of equals."""
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not pairs:
            return symbols
        index = min(pairs)[1]
        symbols[index : index + 2] = [symbols[index] + symbols[index + 1]]


@st.composite
def merged_tokens(draw: st.DrawFn, letters: str, size: int) -> list[tuple[str, str]]:
    """Pairs of tokens, each made of letters or of tokens before it."""
    tokens, pairs = list(letters), []
    for _ in range(draw(st.integers(0, size))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if "".join(pair) not in tokens:
            pairs.append(pair)
            tokens.append("".join(pair))
    return pairs


@settings(max_examples=150, deadline=None)
@given(pairs=merged_tokens("ab▁", 12), shuffle=st.randoms(), text=st.text(alphabet="ab é▁", max_size=30))
def test_sentencepiece_merging_follows_the_scores(pairs, shuffle, text) -> None:  # type: ignore[no-untyped-def]
    pieces = ["".join(pair) for pair in pairs]
    shuffle.shuffle(pieces)
    pieces += ["a", "b", "▁"]
    tokenizer = Tokenizer.from_metadata(spm_metadata(pieces))
    scores = {piece: -float(rank) for rank, piece in enumerate(pieces)}
    expected: list[str] = []
    for symbol in merge_by_score(list(("▁" + text).replace(" ", "▁")) if text else [], scores):
        expected += [symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    assert [
        tokenizer.id_to_token(index) for index in tokenizer.encode(text, add_special_tokens=False)
    ] == expected
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " "), (
        "U+2581 is how spaces are written"
    )


@settings(max_examples=150, deadline=None)
@given(pairs=merged_tokens("abé", 12), text=st.text(alphabet="abé", max_size=30))
def test_byte_level_merging_follows_the_ranks(pairs, text) -> None:  # type: ignore[no-untyped-def]
    spelled = [tuple("".join(LETTERS[byte] for byte in part.encode()) for part in pair) for pair in pairs]
    spelled.insert(0, (LETTERS[0xC3], LETTERS[0xA9]))  # The two bytes of é.
    tokenizer = Tokenizer.from_metadata(bpe_metadata([" ".join(pair) for pair in spelled]))
    ranks = {pair: rank for rank, pair in enumerate(spelled)}
    expected = merge_by_rank([LETTERS[byte] for byte in text.encode()], ranks)
    assert [tokenizer.id_to_token(index) for index in tokenizer.encode(text)] == expected


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(max_size=60), pre=st.sampled_from(["gpt-2", "llama-bpe", "deepseek-llm", "deepseek-r1-qwen"])
)
def test_any_text_returns_from_a_byte_level_tokenizer(text: str, pre: str) -> None:
    tokenizer = Tokenizer.from_metadata(bpe_metadata(pre=pre))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(tokenizer.decode(tokenizer.encode(text))) == tokenizer.encode(text)
