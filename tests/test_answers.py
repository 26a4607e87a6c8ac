"""Several answers to one prompt: each is that of a request for it alone, in whatever way they are asked for."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

import numpy as np
import pytest
from fake_executor import expected_logits
from test_llm import BOS, EOS, VOCAB, ids_of, is_clean, make

import torchless
from torchless.errors import InvalidRequestError

ASKED = {"max_tokens": 12, "temperature": 1.2}


def shown(completion: Any) -> tuple[Any, ...]:
    return completion.text, completion.token_ids, completion.finish_reason, completion.params


def alone(model: Any, prompt: str, seeds: Any, **options: Any) -> list[tuple[Any, ...]]:
    return [shown(model.generate(prompt, seed=seed, **{**ASKED, **options})) for seed in seeds]


def test_each_answer_is_that_of_its_seed_alone():
    model = make()
    done = model.generate("abc", n=4, seed=7, **ASKED)
    assert [shown(one) for one in done.choices] == alone(model, "abc", range(7, 11))
    assert len({one.text for one in done.choices}) > 1, "they differ"
    assert done.choices[0] is done and len(done.others) == 3
    assert all(one.others == () and one.params.n == 1 for one in done.others)
    again = model.generate("abc", params=done.others[1].params)
    assert shown(again) == shown(done.others[1]) and again.others == ()
    assert is_clean(model)


def test_seeds_wrap_around_and_are_drawn_where_none_is_given():
    model = make()
    done = model.generate("abc", n=2, seed=2**64 - 1, **ASKED)
    assert [one.params.seed for one in done.choices] == [2**64 - 1, 0]
    drawn = [one.params.seed for one in model.generate("abc", n=3, **ASKED).choices]
    assert drawn == [drawn[0], drawn[0] + 1, drawn[0] + 2]


def test_every_way_of_asking_gives_the_same_answers():
    model = make(template="{% for m in messages %}{{ m.content }}{% endfor %}")
    expected = alone(model, "abc", range(7, 10))
    options = {"n": 3, "seed": 7, **ASKED}

    async def later() -> list[Any]:
        whole = await model.agenerate("abc", **options)
        pieces = [chunk async for chunk in model.astream("abc", **options)]
        return [whole, pieces]

    whole, pieces = asyncio.run(later())
    future = model.submit("abc", **options)
    (batched,) = model.batch(["abc"], **options)
    (own,) = model.batch([torchless.Request("abc", **options)])
    for done in (whole, batched, own, future.result()):
        assert [shown(one) for one in done.choices] == expected
    for chunks in (pieces, list(model.stream("abc", **options)), list(future)):
        check_pieces(chunks, expected)
    messages = [{"role": "user", "content": "abc"}]
    chat = model.chat(messages, **options)
    assert len(chat.choices) == 3
    check_pieces(list(model.stream_chat(messages, **options)), [shown(one) for one in chat.choices])
    assert is_clean(model)


def check_pieces(chunks: list[Any], expected: list[tuple[Any, ...]]) -> None:
    for i, (text, token_ids, reason, params) in enumerate(expected):
        own = [chunk for chunk in chunks if chunk.index == i]
        assert "".join(chunk.text for chunk in own) == text
        assert tuple(token_id for chunk in own for token_id in chunk.token_ids) == token_ids
        assert [chunk.completion is not None for chunk in own] == [False] * (len(own) - 1) + [True]
        assert shown(own[-1].completion) == (text, token_ids, reason, params)


def test_pieces_of_all_answers_come_as_they_are_ready():
    indices = [chunk.index for chunk in make().stream("abc", n=3, seed=7, ignore_eos=True, **ASKED)]
    assert set(indices[:6]) == {0, 1, 2}


def test_the_best_are_those_with_the_likeliest_tokens():
    model = make()
    done = model.generate("abc", n=2, best_of=6, seed=7, **ASKED)
    every = model.generate("abc", n=6, seed=7, logprobs=0, **ASKED).choices
    ranked = sorted(every, key=lambda one: -one.mean_logprob)
    assert [one.params.seed for one in done.choices] == [one.params.seed for one in ranked[:2]]
    assert [one.mean_logprob for one in done.choices] == [one.mean_logprob for one in ranked[:2]]
    assert done.logprobs is None, "they were not asked for"
    seeds = {one.params.seed for one in model.generate("abc", best_of=6, seed=7, **ASKED).choices}
    assert seeds == {ranked[0].params.seed}
    future = model.submit("abc", n=2, best_of=6, seed=7, **ASKED)
    assert [shown(one) for one in future.result().choices] == [shown(one) for one in done.choices]
    for ask in (lambda: model.stream("abc", best_of=6), lambda: list(future)):
        with pytest.raises(InvalidRequestError, match="best_of has no pieces"):
            ask()


def test_a_mean_counts_the_end_token():
    done = make(says="ab", after=2).generate("x", temperature=0, max_tokens=2, logprobs=0)
    assert done.mean_logprob == pytest.approx(sum(entry.logprob for entry in done.logprobs) / 2)
    ended = make().generate("x", temperature=0, logprobs=0, logit_bias={EOS: 100})
    row = expected_logits([BOS, *ids_of("x")], VOCAB).astype(float)
    assert ended.logprobs == () and ended.mean_logprob == pytest.approx(row[EOS] - np.log(np.exp(row).sum()))


def test_the_prompt_is_scored_once():
    done = make().generate("abc", n=3, best_of=4, seed=1, prompt_logprobs=1, **ASKED)
    assert len(done.prompt_logprobs) == 4
    assert all(one.prompt_logprobs is None for one in done.others)


def test_cancelling_and_closing_end_all_answers():
    model = make()
    future = model.submit("abc", n=4, ignore_eos=True, max_tokens=150)
    assert future.cancel() and future.cancelled()
    stream = model.stream("abc", n=4, ignore_eos=True, max_tokens=150)
    next(stream)
    stream.close()
    assert is_clean(model)


def test_an_error_in_one_answer_ends_the_request():
    def fail(ids: Any, logits: Any) -> None:
        if len(ids) == 9:
            raise ZeroDivisionError("of the caller")

    model = make()
    with pytest.raises(ZeroDivisionError):
        model.generate("abc", n=3, ignore_eos=True, processors=[fail], max_tokens=150)
    future = model.submit("abc", n=3, ignore_eos=True, processors=[fail], max_tokens=150)
    assert isinstance(future.exception(), ZeroDivisionError)
    concurrent.futures.wait([future])
    assert is_clean(model)


def test_each_answer_follows_a_grammar_of_its_own():
    pytest.importorskip("llguidance")
    pytest.importorskip("torchless._core")
    with torchless.load(ctx=256, threads=1) as model:
        done = model.generate("Once", n=4, seed=3, temperature=1.5, regex="[a-z]{5}")
        assert all(len(one.text) == 5 and one.text.isalpha() for one in done.choices)
        solo = [model.generate("Once", seed=3 + i, temperature=1.5, regex="[a-z]{5}").text for i in range(4)]
        assert [one.text for one in done.choices] == solo
