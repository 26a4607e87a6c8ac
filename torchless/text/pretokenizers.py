"""The pre-tokenizers of byte-level BPE vocabularies: how text is cut into words before merging, as data.

Each entry holds what the model's own ``tokenizer.json`` says, or for a few what llama.cpp does (seed-coder, mellum,
viking); docs/tokenizers.md tells how each was checked. A name that is not in the table is refused: a wrong
pre-tokenizer gives plausible but wrong ids, which nobody notices until the answers are bad.
"""

from __future__ import annotations

from dataclasses import dataclass

from torchless.errors import UnsupportedError

__all__ = ["DIGITS", "NUMBERS", "PRE_TOKENIZERS", "PUNCTUATION", "PreTokenizer", "find_pre_tokenizer"]

# Steps of the `tokenizers` library that files name instead of a regex; its tables are older than Oniguruma's.
DIGITS = "<each digit>"
NUMBERS = "<runs of digits>"
PUNCTUATION = "<runs of punctuation>"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One way to cut text into words.

    Attributes:
        names: values of ``tokenizer.ggml.pre`` that mean this entry; the first is its proper name.
        splits: regular expressions (Oniguruma), or `DIGITS`, `NUMBERS`, `PUNCTUATION`. Each cuts every piece that the
            ones before it left; matches and what lies between them become pieces of their own.
        letter_splits: further ones, for the letters that stand for a piece's bytes (`pieces.BYTE_LETTERS`).
        normalizer: Unicode normal form that is applied first, or None.
        ignore_merges: a word that is a token as a whole is taken at once, without merging.
        add_bos: whether a prompt starts with the BOS token when the file does not say.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    letter_splits: tuple[str, ...] = ()
    normalizer: str | None = None
    ignore_merges: bool = False
    add_bos: bool = False


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# As Llama 3's, but every digit stands alone.
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# As Qwen 2's, but a line end never goes with what stands before it.
_SEED_CODER = _QWEN2.replace(r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}\r\n]+")
# As Qwen 2's, with combining marks among the letters.
_QWEN35 = _QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")
# Letters of the bicameral scripts (Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee, Coptic, ...).
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59"
    "\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3"
    "\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d"
    "\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b"
    "\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
# Words end where capitals follow small letters; "/" may follow punctuation.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+CONTRACTION"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*CONTRACTION"
    r"|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _CASED_WORDS.replace("CONTRACTION", "").replace("NUMBER", r"\p{N}")
_O200K = _CASED_WORDS.replace("CONTRACTION", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace("NUMBER", r"\p{N}{1,3}")
_DEEPSEEK_V3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_IDEOGRAPHS = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"

PRE_TOKENIZERS: tuple[PreTokenizer, ...] = (
    PreTokenizer(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        (_LLAMA3,),
        ignore_merges=True,
        add_bos=True,
    ),
    PreTokenizer(("dbrx", "smaug-bpe"), (_LLAMA3,)),
    PreTokenizer(("qwen2", "stablelm2", "megrez"), (_QWEN2,), normalizer="NFC"),
    # The distilled models took Qwen's vocabulary and words, but not its normaliser.
    PreTokenizer(("deepseek-r1-qwen",), (_QWEN2,)),
    PreTokenizer(("qwen35",), (_QWEN35,), normalizer="NFC"),
    PreTokenizer(("seed-coder",), (_SEED_CODER,)),
    PreTokenizer(("gpt-2", "phi-2", "jais", "roberta-bpe", "mellum"), (_GPT2,)),
    PreTokenizer(("olmo", "mpt"), (_GPT2,), normalizer="NFC"),
    # Each digit stands alone.
    PreTokenizer(("starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b"), (DIGITS, _GPT2)),
    PreTokenizer(("command-r",), (DIGITS, _GPT2), normalizer="NFC"),
    # Its digits are cut among the letters of bytes, some of which are numbers, too: in "\u043c" (D0 BC) BC is "\u00bc".
    PreTokenizer(("falcon",), (PUNCTUATION, _GPT2), (NUMBERS, "[0-9][0-9][0-9]")),
    PreTokenizer(("tekken",), (_TEKKEN,), ignore_merges=True, add_bos=True),
    PreTokenizer(("gpt-4o", "llama4", "kanana2"), (_O200K,)),
    PreTokenizer(("bloom", "poro-chat", "gpt3-finnish"), (_BLOOM,)),
    PreTokenizer(("viking",), (_BLOOM, DIGITS)),
    PreTokenizer(
        ("deepseek-v3",), (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK_V3)
    ),
    PreTokenizer(("deepseek-coder",), (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _IDEOGRAPHS, DIGITS)),
    PreTokenizer(
        ("deepseek-llm",),
        (
            r"[\r\n]",
            rf"\s?[{_CASED_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            _IDEOGRAPHS,
            DIGITS,  # llama.cpp has runs: the same, since no token of the vocabulary has two digits
        ),
    ),
)


def find_pre_tokenizer(name: str | None) -> PreTokenizer:
    """The entry that ``tokenizer.ggml.pre`` names.

    Raises:
        UnsupportedError: absent, ``"default"`` (the file does not know it either) or not in the table.
    """
    for entry in PRE_TOKENIZERS:
        if name in entry.names:
            return entry
    known = ", ".join(known for entry in PRE_TOKENIZERS for known in entry.names)
    if name is None or name == "default":
        found = "is missing" if name is None else "is 'default'"
        raise UnsupportedError(
            f"tokenizer.ggml.pre {found}: the file does not say how its text is cut into words, and a guess "
            f"would silently give wrong tokens; convert the model again with a current converter, or load "
            f"the original model's folder with its tokenizer.json (known: {known})"
        )
    raise UnsupportedError(
        f"tokenizer.ggml.pre is {name!r}, a pre-tokenizer that torchless does not know (known: {known}); "
        f"load the original model's folder with its tokenizer.json instead"
    )
