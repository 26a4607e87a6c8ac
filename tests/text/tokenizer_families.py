"""Small tokenizers as the families publish them: `tokenizer.json` in the library's own terms, not in ours.

Rules and vocabularies are made here; what a family writes (which steps, in which order) follows its published file.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from torchless.text.pretokenizers import find_pre_tokenizer

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    rf"{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+"
    rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED_CODER = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}"
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
IDEOGRAPHS = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# A list of 1,900 characters, which the vectors of a real vocabulary check.
LETTERS = find_pre_tokenizer("deepseek-llm").splits[1]


@dataclass(frozen=True)
class Family:
    """The steps before merging; `nfc` and `ignore_merges` as in the published file.

    `has_pieces`: spaces become U+2581 and characters without a token bytes, as SentencePiece does; no bytes as letters.
    `has_ranks`: merged by rank in GGUF files too, not by score. `prefix`: a space goes before the text.
    """

    steps: tuple[object, ...]
    nfc: bool = False
    ignore_merges: bool = False
    has_pieces: bool = False
    has_ranks: bool = False
    prefix: bool = False


def _split(regex: str) -> object:
    return pre_tokenizers.Split(Regex(regex), "isolated")


def _bytes(use_regex: bool = False) -> object:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _digits() -> object:
    return pre_tokenizers.Digits(individual_digits=True)


FAMILIES = {
    "llama-bpe": Family((_split(CL100K), _bytes()), ignore_merges=True),
    "dbrx": Family((_split(CL100K), _bytes())),
    "qwen2": Family((_split(QWEN), _bytes()), nfc=True),
    "deepseek-r1-qwen": Family((_split(QWEN), _bytes())),
    "qwen35": Family((_split(QWEN35), _bytes()), nfc=True),
    "gpt-2": Family((_bytes(use_regex=True),)),
    "olmo": Family((_bytes(use_regex=True),), nfc=True),
    "starcoder": Family((_digits(), _bytes(use_regex=True))),
    "command-r": Family((_digits(), _bytes(use_regex=True)), nfc=True),
    "falcon": Family(
        (
            pre_tokenizers.Punctuation("contiguous"),
            _bytes(use_regex=True),
            pre_tokenizers.Digits(individual_digits=False),
            _split("[0-9][0-9][0-9]"),
        )
    ),
    "seed-coder": Family((_split(SEED_CODER), _bytes())),
    "tekken": Family((_split(TEKKEN), _bytes()), ignore_merges=True),
    "gpt-4o": Family((_split(O200K), _bytes())),
    "bloom": Family((_split(BLOOM), _bytes())),
    "viking": Family((_split(BLOOM), _digits(), _bytes())),
    "deepseek-v3": Family(
        (
            _split(r"\p{N}{1,3}"),
            _split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
            _split(DEEPSEEK_V3),
            _bytes(),
        )
    ),
    "deepseek-llm": Family(
        (
            _split(r"[\r\n]"),
            _split(LETTERS),
            _split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
            _split(r"\s+$"),
            _split(IDEOGRAPHS),
            _digits(),
            _bytes(),
        )
    ),
    "deepseek-coder": Family(
        (
            _split(r"[\r\n]"),
            _split(r"\s?\p{L}+"),
            _split(r"\s?\p{P}+"),
            _split(IDEOGRAPHS),
            _digits(),
            _bytes(),
        )
    ),
}
FAMILIES["gemma4"] = Family(
    (pre_tokenizers.Split(" ", "merged_with_previous"),), has_pieces=True, has_ranks=True
)
FAMILIES["llama"] = Family((), has_pieces=True, prefix=True)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<\uff5cfim\u2581begin\uff5c>")

_RANGES = (
    (0x20, 0x7F), (0x20, 0x7F), (0x30, 0x3A), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700),
    (0x900, 0x980), (0xE00, 0xE60), (0x10A0, 0x1100), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2150, 0x2190),
    (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xFE00, 0xFE10), (0xFF00, 0xFFEF), (0x1D400, 0x1D800),
    (0x1F300, 0x1F650), (0xE000, 0xE010), (0x10FFF0, 0x110000),
)  # fmt: skip
_PIECES = (
    *SPECIAL, "<|im_", "end|>", "'s", "'S", "'re", "'LL", "don't", " ", "  ", "    ", "\t", "\n", "\r\n", "\n\n",
    "\u00a0", "\u00a0",
    "\u3000", "\u200b", "\u200d", "\ufe0f", "\u0301", "e\u0301", "\u00e9", "1", "123", "1234567", "3.14", "\u00b2",
    "\U0001f468\u200d\U0001f469", "//", "://", "x=", "Hello", " world", "iPhone", "\u0130", "\ufb01", "\x00", "\x7f",
    "_", "\ufffd", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "1\ufe0f\u20e3", "\u0e33",
    "\u0915\u094d\u0937", "\u1100\u1161",
    "<|im_start|", "|im_end|>", "<|im_start|><|im_end|>", "<<|endoftext|>>", " <|im_end|> ",
)  # fmt: skip


def random_text(draw: random.Random) -> str:
    """Pieces that are hard to cut, between letters of one script at a time; bytes that are no UTF-8 as U+FFFD."""
    parts = []
    for _ in range(draw.randrange(1, 9)):
        kind = draw.randrange(8)
        if kind == 0:
            parts.append(draw.randbytes(draw.randrange(1, 6)).decode("utf-8", "replace"))
        elif kind < 4:
            parts.append(draw.choice(_PIECES) * draw.choice((1, 1, 1, 2, 3)))
        else:
            low, high = draw.choice(_RANGES)
            parts.append("".join(chr(draw.randrange(low, high)) for _ in range(draw.randrange(1, 7))))
    return "".join(parts)


def make_library_tokenizer(name: str, vocab_size: int = 1500) -> Tokenizer:
    """The family's tokenizer with a vocabulary trained on random words and texts."""
    family = FAMILIES[name]
    if family.has_pieces:
        return _with_pieces(family, vocab_size)
    library = Tokenizer(models.BPE(ignore_merges=family.ignore_merges))
    if family.nfc:
        library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence(list(family.steps))
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(_training_texts(name), trainer)
    library.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return library


def _training_texts(name: str) -> list[str]:
    draw = random.Random(name)
    words = ["".join(draw.choices("etaoinshrdlu'T1 ", k=draw.randrange(2, 9))) for _ in range(300)]
    return [" ".join(draw.choices(words, k=12)) + random_text(draw) for _ in range(1500)]


def _with_pieces(family: Family, vocab_size: int) -> Tokenizer:
    """Trained on words behind U+2581 and runs of line breaks; tokens for bytes are what all other characters become."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581*[^\u2581\n]+|\n+|\u2581+"), "isolated")
    # Without the special tokens, which merging must not make.
    texts = [
        text.replace("\n", "\n\n\n").replace("<", "").replace("|", "") for text in _training_texts("gemma4")
    ]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, limit_alphabet=300, show_progress=False)
    trained.train_from_iterator(texts, trainer)
    state = json.loads(trained.to_str())["model"]
    heads = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {text: index for index, text in enumerate([*heads, *state["vocab"]])}
    merges = [tuple(pair) for pair in state["merges"]] if family.has_ranks else _all_merges(state["vocab"])
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    library = Tokenizer(model)
    spaces = normalizers.Replace(" ", "\u2581")
    library.normalizer = (
        normalizers.Sequence([normalizers.Prepend("\u2581"), spaces]) if family.prefix else spaces
    )
    if family.steps:
        library.pre_tokenizer = pre_tokenizers.Sequence(list(family.steps))
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    library.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if family.prefix else [])])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *SPECIAL]
    library.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return library


def _all_merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair that makes a token, in the order of the tokens: as scores of SentencePiece say."""
    return [
        (text[:cut], text[cut:])
        for text in sorted(vocabulary, key=vocabulary.__getitem__)
        for cut in range(1, len(text))
        if text[:cut] in vocabulary and text[cut:] in vocabulary
    ]


def write_folder(folder: Path, library: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    config = {"bos_token": None, "eos_token": SPECIAL[0], "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def first_difference(
    library: Tokenizer, ours: list[object], texts: list[str]
) -> tuple[str, list[int], list[int]] | None:
    """The first text to which one of `ours` gives other ids than the library, with both; None where all agree."""
    return next(iter(compare(library, ours, texts).differences), None)


@dataclass
class Comparison:
    """`num_ids` ids of the library, and each text with them that one of ours gave others: (text, wanted, found)."""

    num_ids: int
    differences: list[tuple[str, list[int], list[int]]]


def compare(library: Tokenizer, ours: list[object], texts: list[str]) -> Comparison:
    """Ids of all texts, with names of special tokens as text and as tokens."""
    result = Comparison(0, [])
    for parse_special in (False, True):
        library.encode_special_tokens = not parse_special
        for start in range(0, len(texts), 1000):
            part = texts[start : start + 1000]
            for text, encoding in zip(
                part, library.encode_batch(part, add_special_tokens=False), strict=True
            ):
                wanted = encoding.ids
                result.num_ids += len(wanted)
                for tokenizer in ours:
                    found = tokenizer.encode(text, add_special_tokens=False, parse_special=parse_special)
                    if found != wanted:
                        result.differences.append((text, wanted, found))
    return result
