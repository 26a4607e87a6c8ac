"""Vocabularies of all kinds: bytes, pieces with spaces in front, control tokens, several end tokens or none."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llguidance")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "text"))

from vocabularies import bpe_metadata, spm_metadata

from torchless.constraints.grammars import grammar_from_choices, grammar_from_regex, grammar_from_schema
from torchless.constraints.matcher import MatcherPool
from torchless.constraints.tokens import GrammarTokens
from torchless.errors import GrammarError
from torchless.text.tokenizer import Tokenizer
from torchless.weights.gguf import GgufSource

SPECIAL = {"<s>": 3, "<|end|>": 3, "<|im_end|>": 3, "<note>": 4}
MORE = {text: kind for text, kind in SPECIAL.items() if text != "<s>"}


def pool_of(tokenizer, vocab_size=None):
    return MatcherPool(GrammarTokens(tokenizer, vocab_size or tokenizer.vocab_size))


def allowed(matcher, vocab_size):
    bits = np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")
    assert not bits[vocab_size:].any(), "bits beyond the vocabulary"
    return bits[:vocab_size].nonzero()[0].tolist()


def random_text(tokenizer, matcher, rng, limit=400, end=()):
    """Picks among what is allowed, all alike, until the end; None where `limit` tokens do not do."""
    data = b""
    for _ in range(limit):
        choices = allowed(matcher, tokenizer.vocab_size)
        token = int(rng.choice(choices))
        matcher.accept(token)
        if token in tokenizer.eos_ids or token in end:
            return data.decode()  # strict
        data += tokenizer.token_bytes(token)
        assert token not in tokenizer.special_ids
        if matcher.must_stop:
            return data.decode()
    return None


SCHEMA = {
    "type": "object",
    "properties": {
        "é": {"enum": ["😀😀", "naïve", 1.5, None]},
        "text": {"type": "string", "maxLength": 6},
        "size": {"type": "number", "maximum": 99, "minimum": -99},
        "list": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["é", "text", "size", "list"],
    "additionalProperties": False,
}


def check_vocabulary(tokenizer, count):
    jsonschema = pytest.importorskip("jsonschema")
    validator, pool, rng = (
        jsonschema.Draft202012Validator(SCHEMA),
        pool_of(tokenizer),
        np.random.default_rng(7),
    )
    texts = []
    for _ in range(count):
        text = random_text(tokenizer, pool.matcher(grammar_from_schema(SCHEMA)), rng)
        if text is not None:
            validator.validate(json.loads(text))
            texts.append(text)
    assert len(texts) > count // 2
    pool.close()


VOCABULARIES = {
    "bytes": bpe_metadata(special=SPECIAL),
    "pieces": spm_metadata(["▁", "▁{", '{"', '":', "▁true", "fal", "▁na", "😀", "ï"], special=MORE),
    "pieces, no space in front": spm_metadata(["▁", '{"', '":'], special=MORE, add_space_prefix=False),
}


@pytest.mark.parametrize("name", list(VOCABULARIES))
def test_random_texts_are_valid_json(name):
    check_vocabulary(Tokenizer.from_metadata(VOCABULARIES[name]), 20)


@pytest.mark.parametrize("name", ["llama-bpe", "llama-spm", "phi-3", "qwen2", "gpt-2", "deepseek-llm"])
def test_random_texts_of_published_vocabularies_are_valid_json(name, shared_data):
    with GgufSource(shared_data(f"vocab/ggml-vocab-{name}.gguf")) as source:
        tokenizer = Tokenizer.from_metadata(source.metadata)
    check_vocabulary(tokenizer, 6)


def test_a_character_may_be_written_byte_by_byte():
    tokenizer = Tokenizer.from_metadata(VOCABULARIES["bytes"])
    matcher = pool_of(tokenizer).matcher(grammar_from_choices(["😀"]))
    for byte in "😀".encode():
        token = next(
            i for i in allowed(matcher, tokenizer.vocab_size) if tokenizer.token_bytes(i) == bytes([byte])
        )
        matcher.accept(token)
    assert matcher.must_stop and matcher.is_satisfied


def test_control_tokens_are_no_text_and_end_tokens_come_where_it_is_complete():
    tokenizer = Tokenizer.from_metadata(bpe_metadata(special=SPECIAL))
    matcher = pool_of(tokenizer).matcher(grammar_from_regex("(?s:.)*"))
    ends, control = set(tokenizer.eos_ids), tokenizer.special_ids
    assert len(ends) == 2 and ends < control
    choices = set(allowed(matcher, tokenizer.vocab_size))
    assert choices & control == ends  # "" matches
    assert tokenizer.token_to_id("<note>") in choices  # a user's token is text
    word = pool_of(tokenizer).matcher(grammar_from_regex("<s>a*"))
    assert not set(allowed(word, tokenizer.vocab_size)) & control


def test_without_end_tokens_a_text_ends_where_nothing_may_follow():
    tokenizer = Tokenizer.from_metadata(bpe_metadata())
    assert not tokenizer.eos_ids
    for vocab_size in (tokenizer.vocab_size, 320):  # logits may have more rows than there are tokens
        pool = pool_of(tokenizer, vocab_size)
        matcher = pool.matcher(grammar_from_choices(["hello"]))
        assert random_text(tokenizer, matcher, np.random.default_rng(1)) == "hello"
        assert allowed(pool.matcher(grammar_from_regex("(?s:.)*")), vocab_size)


def test_further_end_tokens_of_a_request_end_it_where_it_is_complete():
    tokenizer = Tokenizer.from_metadata(bpe_metadata(special=SPECIAL))
    middle = tokenizer.token_to_id("<s>")
    matcher = pool_of(tokenizer).matcher(grammar_from_regex("ab?"), more_end_ids=[middle])
    assert middle not in allowed(matcher, tokenizer.vocab_size)
    matcher.accept(tokenizer.token_to_id("a"))
    assert middle in allowed(matcher, tokenizer.vocab_size)
    matcher.accept(middle)
    assert matcher.must_stop and matcher.is_satisfied
    matcher.rollback(1)
    assert not matcher.must_stop and middle in allowed(matcher, tokenizer.vocab_size)


def test_going_back_and_forks_give_the_masks_of_a_new_matcher():
    tokenizer = Tokenizer.from_metadata(VOCABULARIES["pieces"])
    pool, rng = pool_of(tokenizer), np.random.default_rng(3)
    for _ in range(5):
        matcher, ids, masks, forks = pool.matcher(grammar_from_schema(SCHEMA)), [], [], []
        for step in range(12):
            masks.append(matcher.mask().copy())
            forks.append(matcher.fork())
            ids.append(int(rng.choice(allowed(matcher, tokenizer.vocab_size))))
            matcher.accept(ids[-1])
            if step % 2:
                matcher.prepare()
        for back in range(12, 0, -1):
            matcher.rollback(1)
            np.testing.assert_array_equal(matcher.mask(), masks[back - 1])
            np.testing.assert_array_equal(forks[back - 1].mask(), masks[back - 1])
        for token in ids:
            matcher.accept(token)
            forks[0].accept(token)
        np.testing.assert_array_equal(matcher.mask(), forks[0].mask())


def test_a_token_that_is_not_allowed_is_refused():
    tokenizer = Tokenizer.from_metadata(VOCABULARIES["bytes"])
    matcher = pool_of(tokenizer).matcher(grammar_from_choices(["ab"]))
    with pytest.raises(GrammarError, match="does not follow"):
        matcher.accept(tokenizer.token_to_id("b"))


def test_a_vocabulary_that_cannot_write_the_text_says_so():
    tokenizer = Tokenizer.from_metadata(spm_metadata(["a", "b"], byte_tokens=False))
    matcher = pool_of(tokenizer).matcher(grammar_from_choices(["aé"]))
    matcher.accept(tokenizer.token_to_id("a"))
    with pytest.raises(GrammarError):
        matcher.mask()


def test_a_text_without_choice_is_written_as_the_tokenizer_does():
    tokenizer = Tokenizer.from_metadata(bpe_metadata(special=SPECIAL))
    matcher = pool_of(tokenizer).matcher(grammar_from_choices(["hello!"]))
    assert allowed(matcher, tokenizer.vocab_size) == [tokenizer.token_to_id("hello")]
