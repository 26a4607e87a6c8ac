"""Memory is counted before it is taken: what is chosen, and what is said when nothing fits."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from torchless.backends.base import PAGE_TOKENS
from torchless.errors import OutOfMemoryError
from torchless.fitting import fit
from torchless.memory import Available
from torchless.plan import Plan

MIB = 1 << 20
KV_BYTES = {"f16": 2, "bf16": 2, "f32": 4, "q8_0": 1}


class LinearBackend:
    """100 MiB of weights, 10 KiB of scratch a row, 16 KiB of f16 cache a token."""

    def required_bytes(self, plan, source, options):
        packed = options.packed_bytes if options.lazy == "all" else None
        return {
            "weights": 100 * MIB if packed is None else min(packed, 100 * MIB),
            "scratch": options.max_batch_tokens * 10 * 1024 + options.max_outputs * 4 * plan.output.width,
            "kv": options.num_pages * PAGE_TOKENS * 8 * 1024 * KV_BYTES[options.kv_type],
        }


def plan_with_vocabulary(vocab_size):
    plan = Plan({"t": (vocab_size, 8)})
    plan.set_output(plan.linear(plan.embed("t"), "t"))
    return plan


def fit_into(
    mib, *, ctx=None, trained=8192, batch_tokens=512, kv="f16", vocab_size=1000, lazy="off", memory=None
):
    return fit(
        LinearBackend(),
        plan_with_vocabulary(vocab_size),
        SimpleNamespace(path=Path("big.gguf")),
        ctx=ctx,
        trained_context_length=trained,
        batch_tokens=batch_tokens,
        num_threads=2,
        kv=kv,
        lazy=lazy,
        memory=memory,
        measure=lambda: None if mib is None else Available(int(mib * MIB), "free memory of this machine"),
    )


def needed(fitted):
    options = fitted.options
    return sum(LinearBackend().required_bytes(plan_with_vocabulary(1000), None, options).values())


def test_auto_takes_at_most_4096_tokens_and_what_the_model_was_trained_for():
    assert fit_into(10_000).context_length == 4096
    assert fit_into(10_000, trained=1000).context_length == 1000
    assert fit_into(None).context_length == 4096


def test_auto_shrinks_to_the_largest_context_that_fits():
    fitted = fit_into(130)
    assert fitted.context_length % PAGE_TOKENS == 0
    assert needed(fitted) <= 130 * MIB < needed(fitted) + PAGE_TOKENS * 16 * 1024
    assert 512 <= fitted.context_length < 4096


def test_auto_uses_the_last_whole_page_that_fits_below_an_odd_context():
    assert fit_into(121, trained=1000, batch_tokens=1).context_length == 1000
    enough_for_31_pages = 100 + (10 * 1024 + 4000 + 31 * PAGE_TOKENS * 16 * 1024) / MIB
    assert fit_into(enough_for_31_pages, trained=1000, batch_tokens=1).context_length == 992


def test_a_wanted_context_is_never_changed():
    assert fit_into(10_000, ctx=100_000).context_length == 100_000
    assert fit_into(10_000, ctx=33).context_length == 33
    with pytest.raises(OutOfMemoryError):
        fit_into(150, ctx=4096)


def test_pages_hold_the_whole_context():
    options = fit_into(175, ctx=4095).options
    assert options.num_pages * PAGE_TOKENS >= 4095


def test_plenty_of_memory_gives_pages_for_several_sequences_but_not_more_than_half_of_it():
    assert fit_into(10_000, ctx=1024).options.num_pages == 8 * 32
    assert fit_into(400, ctx=1024).options.num_pages == 4 * 32
    assert fit_into(150, ctx=1024).options.num_pages == 32


def test_sequences_have_state_slots_as_contexts_have_pages():
    assert fit_into(10_000, ctx=1024).options.num_state_slots == 16
    assert fit_into(150, ctx=1024).options.num_state_slots == 2
    assert fit_into(10_000, batch_tokens=3).options.num_state_slots == 3


def test_output_rows_are_bounded_by_their_memory():
    assert fit_into(10_000, vocab_size=512).options.max_outputs == 512
    assert fit_into(10_000, vocab_size=131_072).options.max_outputs == 64
    assert fit_into(10_000, vocab_size=4_000_000).options.max_outputs == 8
    assert fit_into(10_000, batch_tokens=3).options.max_outputs == 3


def test_steps_are_not_larger_than_the_cache():
    assert fit_into(None, ctx=64).options.max_batch_tokens == 64


def message(**options):
    with pytest.raises(OutOfMemoryError) as caught:
        fit_into(**options)
    return str(caught.value)


def test_the_refusal_has_the_numbers_by_purpose_and_a_context_that_would_fit():
    text = message(mib=150, ctx=8192)
    for part in (
        "big.gguf",
        "8192 tokens",
        "weights 100 MiB",
        "kv 128 MiB",
        "150 MiB are available",
        "free memory",
    ):
        assert part in text, text
    smaller = int(text.split("ctx=")[1].split()[0])
    assert fit_into(150, ctx=smaller).context_length == smaller
    with pytest.raises(OutOfMemoryError):
        fit_into(150, ctx=smaller + PAGE_TOKENS)
    assert text.count("(1)") == text.count("(2)") == text.count("(3)") == 1


def test_the_refusal_names_a_smaller_cache_type_where_there_is_one():
    text = message(mib=190, ctx=4096, kv="f32")
    assert 'kv="f16" (' in text and "fits)" in text
    assert 'kv="f16"' not in message(mib=150, ctx=8192)


def test_when_the_weights_alone_do_not_fit_no_context_is_promised():
    text = message(mib=50)
    assert "ctx=" not in text
    assert "smaller quantisation" in text and "lazy=True (15.0 MiB, fits; slow)" in text


def test_of_lazy_weights_those_are_packed_that_fit_and_none_where_the_page_cache_holds_all():
    def packed(mib, memory=None):
        options = fit_into(mib, ctx=512, lazy="all", memory=memory).options
        return needed_weights(options), needed(fit_into(mib, ctx=512, lazy="all", memory=memory))

    def needed_weights(options):
        return LinearBackend().required_bytes(plan_with_vocabulary(1000), None, options)["weights"]

    assert packed(1000)[0] == 0  # all would fit
    weights, total = packed(90)
    assert 0 < weights < 90 * MIB and total <= 0.8 * 90 * MIB
    weights, total = packed(1000, 60 * MIB)
    assert weights > 30 * MIB and 59 * MIB < total <= 60 * MIB
    assert packed(1000, 900 * MIB)[0] == 100 * MIB  # asked for, so loaded as a whole
    assert packed(60, 900 * MIB)[1] <= 60 * MIB  # memory that is not there


def test_the_given_memory_binds_and_lazy_is_a_way_out():
    assert fit_into(1000, memory=150 * MIB).context_length < 4096
    with pytest.raises(OutOfMemoryError, match=r"the given memory.*lazy=True \(.* fits; slow\)"):
        fit_into(1000, ctx=512, memory=90 * MIB)
