"""Answers with drafted tokens are those without, to the last bit; settings that cannot work are refused in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import torchless
from torchless.bench.synthetic import write_synthetic
from torchless.errors import InvalidRequestError, UnsupportedError

pytest.importorskip("torchless._core")

REPETITIVE = "The fox saw a kite. The dog saw a kite. The cat saw a kite. The fox saw a kite. The dog saw"
PROMPTS = ("Once upon a time", REPETITIVE, "Zx qq 17 -- ?? ##")


@pytest.fixture(scope="module")
def plain() -> Any:
    with torchless.load(ctx=512, threads=1, speculative="off") as model:
        yield model


def answers(model: Any, prompt: str, max_tokens: int = 70) -> list[tuple[Any, ...]]:
    """Token ids, hash of logits and reason, greedy and sampled."""
    found = []
    for sampling in ({"temperature": 0.0}, {"temperature": 0.9, "seed": 3}, {"temperature": 1.5, "seed": 4}):
        done = model.generate(prompt, max_tokens=max_tokens, logits_hash=True, **sampling)
        fast = model.generate(
            prompt, max_tokens=max_tokens, **sampling
        )  # from the largest logits where that will do
        assert fast.token_ids == done.token_ids and fast.text == done.text
        found.append((done.token_ids, done.logits_hash, done.finish_reason, done.text))
    return found


@pytest.mark.parametrize("num_draft_tokens", [1, 2, 3, 5, 8, 16, "auto"])
def test_drafting_changes_no_answer(plain: Any, num_draft_tokens: Any) -> None:
    with torchless.load(
        ctx=512, threads=1, draft_model="built-in", num_draft_tokens=num_draft_tokens
    ) as model:
        for prompt in PROMPTS:
            assert answers(model, prompt) == answers(plain, prompt)
        if num_draft_tokens != "auto":  # which may find that it does not pay on this machine
            assert model.info["speculation"]["num_kept_tokens"] > 20


@pytest.mark.parametrize("options", [{"kv": "q8_0"}, {"kv": "k=q8_0,v=q4_0"}, {"threads": 2}, {"kv": "bf16"}])
def test_drafting_changes_no_answer_with_other_caches_and_threads(options: dict[str, Any]) -> None:
    settings = {"ctx": 512, "threads": 1, **options}
    with torchless.load(speculative="off", **settings) as model:
        expected = [answers(model, prompt, 40) for prompt in PROMPTS]
    with torchless.load(draft_model="built-in", num_draft_tokens=7, **settings) as model:
        assert [answers(model, prompt, 40) for prompt in PROMPTS] == expected


def test_nothing_watches_for_a_chance_in_a_tiny_model_unless_it_is_asked_to() -> None:
    with torchless.load(ctx=64) as model:
        assert model.info["speculation"] is None
    for asked in ({"speculative": "prompt-lookup"}, {"draft_model": "built-in"}, {"num_draft_tokens": 3}):
        with torchless.load(ctx=64, **asked) as model:  # type: ignore[arg-type]
            assert model.info["speculation"] is not None


def test_looking_back_changes_no_answer(plain: Any) -> None:
    with torchless.load(ctx=512, threads=1, speculative="prompt-lookup", num_draft_tokens=6) as model:
        for prompt in PROMPTS:
            assert answers(model, prompt) == answers(plain, prompt)
        assert model.info["speculation"]["num_kept_tokens"] > 20


def test_many_at_once_get_what_each_gets_alone(plain: Any) -> None:
    prompts = [f"Once upon a time number {i}" for i in range(6)]
    expected = [plain.generate(prompt, max_tokens=50, seed=7).token_ids for prompt in prompts]
    with torchless.load(ctx=512, threads=1, draft_model="built-in", num_draft_tokens=4) as model:
        found = model.batch(prompts, max_tokens=50, seed=7)
        assert [completion.token_ids for completion in found] == expected
        assert sum(done.usage.num_kept_tokens for done in found) > 50


SAMPLERS: dict[str, dict[str, Any]] = {
    "mirostat": {"mirostat": 2, "mirostat_tau": 3.0},
    "mirostat 1": {"mirostat": 1, "mirostat_tau": 3.0},
    "penalties": {"repeat_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.2},
    "DRY": {"dry_multiplier": 0.8, "dry_allowed_length": 2},
    "XTC": {"xtc_probability": 0.5, "xtc_threshold": 0.1},
    "choices": {
        "choices": [
            ", there was a clever girl named Ivy who lived beside a silver lake.",
            ", there was a proud fox named Ruby who lived behind a busy market.",
        ]
    },
    "regex": {"regex": r"(a|the) [a-z]{2,9}( and (a|the) [a-z]{2,9}){4}"},
    "schema": {
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_way_to_pick_picks_the_same(plain: Any, name: str) -> None:
    """What follows the history, or a grammar, sees one token after another, as without drafts."""
    if name in ("choices", "regex", "schema"):
        pytest.importorskip("llguidance")
    with torchless.load(ctx=512, threads=1, draft_model="built-in", num_draft_tokens=5) as model:
        kept = 0
        for prompt in ("Once upon a time", REPETITIVE):
            for seed in (1, 2):
                options = {"max_tokens": 60, "seed": seed, "logits_hash": True, **SAMPLERS[name]}
                ours, theirs = model.generate(prompt, **options), plain.generate(prompt, **options)
                assert (ours.token_ids, ours.logits_hash) == (theirs.token_ids, theirs.logits_hash)
                assert (ours.text, ours.finish_reason) == (theirs.text, theirs.finish_reason)
                kept += ours.usage.num_kept_tokens
        assert kept


def test_stop_strings_end_tokens_and_limits_are_met_inside_a_draft(plain: Any) -> None:
    with torchless.load(ctx=512, threads=1, draft_model="built-in", num_draft_tokens=8) as model:
        for limits in ({"stop": " a "}, {"max_tokens": 1}, {"max_tokens": 2}, {"max_tokens": 5}, {}):
            ours = model.generate("Once upon a time", temperature=0.0, **limits)
            theirs = plain.generate("Once upon a time", temperature=0.0, **limits)
            assert (ours.text, ours.token_ids, ours.finish_reason) == (
                *(theirs.text, theirs.token_ids),
                theirs.finish_reason,
            )


def test_sampled_answers_keep_their_distribution() -> None:
    """Three tokens behind a prompt, over many seeds, against what the model makes of them: chi-square."""
    import numpy as np

    num_seeds = 600
    with torchless.load(ctx=64, threads=1, draft_model="built-in", num_draft_tokens=3) as model:
        prompt = model.tokenizer.encode("Once upon a time, there was a")
        counts = Counter(
            model.generate(
                prompt, max_tokens=3, temperature=1.2, top_k=4, top_p=1.0, min_p=0.0, seed=seed
            ).token_ids
            for seed in range(num_seeds)
        )

        def distribution(ids: list[int]) -> dict[int, float]:
            logits = model.logits(ids)[-1].astype(np.float64) / 1.2
            best = (-logits).argsort(kind="stable")[:4]
            weights = np.exp(logits[best] - logits[best[0]])
            return dict(zip(best.tolist(), (weights / weights.sum()).tolist(), strict=True))

        expected = {
            (first, second, third): p * q * r
            for first, p in distribution(prompt).items()
            for second, q in distribution([*prompt, first]).items()
            for third, r in distribution([*prompt, first, second]).items()
        }
        assert model.info["speculation"]["num_kept_tokens"] > 100
    assert set(counts) <= set(expected)
    common = {pair: p for pair, p in expected.items() if p * num_seeds >= 5}
    observed = [counts[pair] for pair in common] + [num_seeds - sum(counts[pair] for pair in common)]
    wanted = [p * num_seeds for p in common.values()] + [num_seeds * (1 - sum(common.values()))]
    statistic = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True) if w > 0)
    degrees = len(common)
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5, (statistic, degrees)


def test_a_model_with_another_vocabulary_is_refused_by_its_first_difference(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "other.gguf", "test", "Q8_0")
    with pytest.raises(
        InvalidRequestError, match=r"cannot draft for .*: its token \d+ is|: it has \d+ tokens"
    ):
        torchless.load(ctx=64, draft_model=tmp_path / "other.gguf")


def test_models_that_cannot_take_tokens_back_are_not_drafted_for(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "hybrid.gguf", "test-hybrid", "Q8_0")
    with pytest.raises(UnsupportedError, match="recurrent state"):
        torchless.load(tmp_path / "hybrid.gguf", ctx=64, speculative="prompt-lookup")
    with torchless.load(tmp_path / "hybrid.gguf", ctx=64) as model:
        assert model.info["speculation"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculative": "sometimes"}, "must be one of auto, off"),
        ({"speculative": "draft"}, "needs a second model"),
        ({"speculative": "off", "draft_model": "built-in"}, "nobody would ask it"),
        ({"num_draft_tokens": 0}, "num_draft_tokens must be"),
        ({"num_draft_tokens": 99}, "num_draft_tokens must be"),
        ({"draft_model": 5}, "draft_model must be a path"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        torchless.load(ctx=64, **options)


def test_names_of_other_tools_work() -> None:
    with torchless.load(ctx=64, assistant_model="built-in", spec_type="draft", n_draft=3) as model:
        assert model.info["speculation"]["num_draft_tokens"] == 3
        assert model.info["speculation"]["drafters"] == ["DraftModel"]
        assert model.info["draft_model"].endswith("stories-draft.gguf")
