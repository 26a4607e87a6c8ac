"""Writing the KV cache and paged attention: the layout, float64 NumPy as the oracle, and bit-identity."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kv_pages import KV_TYPES, PAGE_TOKENS, Pages, kv_types, rounded

from torchless.backends.reference import ops

Floats = npt.NDArray[np.float32]
MIXED_TYPES = [*KV_TYPES, "q8_0/f16", "f16/q4_0"]


@pytest.mark.parametrize("kv_type", MIXED_TYPES)
@pytest.mark.parametrize(("num_kv_heads", "head_dim"), [(1, 2), (2, 8), (3, 64), (2, 80), (1, 128)])
def test_kv_write_rounds_into_the_page_layout(
    kernels: ModuleType, level: str, rng: np.random.Generator, kv_type: str, num_kv_heads: int, head_dim: int
) -> None:
    expected = Pages(kv_type, num_kv_heads, head_dim, 1)
    layout = kernels.kv_layout(*kv_types(kv_type), num_kv_heads, head_dim)
    assert (layout["page_bytes"], layout["page_tokens"]) == (expected.bytes.shape[1], PAGE_TOKENS)
    got = expected.bytes[0].copy()
    for slot in range(PAGE_TOKENS):
        k, v = (rng.standard_normal((2, num_kv_heads, head_dim)) * 100).astype(np.float32)
        kernels.kv_write(level, k, v, *kv_types(kv_type), slot, got)
        expected.put(0, slot, k, v)
        np.testing.assert_array_equal(got, expected.bytes[0])


@pytest.mark.parametrize("kv_type", ["f16", "bf16"])
def test_kv_write_rounds_like_numpy_at_the_edges(kernels: ModuleType, level: str, kv_type: str) -> None:
    edges = [0.0, -0.0, 65504, 65519.99, 65520, 1e30, -1e30, 6e-8, 2.9e-8, 2.98023224e-8, 6.1e-5, 1 + 2**-11]
    edges += [1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, np.inf, -np.inf]
    k = np.array([edges], np.float32)
    expected, got = Pages(kv_type, 1, k.shape[1], 1), Pages(kv_type, 1, k.shape[1], 1)
    with np.errstate(over="ignore"):
        expected.put(0, 5, k, -k)
    kernels.kv_write(level, k, -k, kv_type, kv_type, 5, got.bytes[0])
    np.testing.assert_array_equal(got.bytes, expected.bytes)


@dataclass
class Sequence:
    """Keys and values (token, kv head, dimension) as they lie in scattered pages, already rounded."""

    kernels: ModuleType
    level: str
    kv_type: str
    k: Floats
    v: Floats
    pages: Pages
    page_ids: npt.NDArray[np.int32]

    def attend(self, q: Floats, first: int, *, window: int = 0, scale: float = 0.1, **rest: Any) -> Floats:
        begin, end = rest.pop("row_begin", 0), rest.pop("row_end", len(q))
        args: list[Any] = [self.level, q, self.pages.bytes, self.page_ids, *kv_types(self.kv_type)]
        args += [self.k.shape[1], first, scale, window, begin, end, rest.pop("rows_per_call", 16)]
        out: Floats = self.kernels.attention(*args, **rest)
        return out

    def reference(
        self, q: Floats, first: int, window: int, scale: float, **shape: Any
    ) -> npt.NDArray[np.float64]:
        k, v = (x[: first + len(q)].astype(np.float64) for x in (self.k, self.v))
        return ops.attend(q.astype(np.float64), k, v, first, scale, window or None, **shape)


def sequence(kernels: ModuleType, level: str, kv_type: str, k: Floats, v: Floats) -> Sequence:
    """Puts tokens into shuffled pages whose other bytes are NaN."""
    num_pages = -(-len(k) // PAGE_TOKENS)
    page_ids = np.random.default_rng(len(k)).permutation(num_pages + 2).astype(np.int32)
    pages = Pages(kv_type, k.shape[1], k.shape[2], num_pages + 2)
    for j in range(len(k)):
        pages.put(int(page_ids[j // PAGE_TOKENS]), j % PAGE_TOKENS, k[j], v[j])
    k_type, v_type = kv_types(kv_type)
    return Sequence(kernels, level, kv_type, rounded(k_type, k), rounded(v_type, v), pages, page_ids)


def random_sequence(
    kernels: ModuleType, level: str, kv_type: str, shape: tuple[int, int, int], seed: int = 1
) -> Sequence:
    k, v = np.random.default_rng(seed).standard_normal((2, *shape)).astype(np.float32)
    return sequence(kernels, level, kv_type, k, v)


def queries(rows: int, heads: int, head_dim: int, seed: int = 7) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, heads, head_dim)).astype(np.float32)


@pytest.mark.parametrize("kv_type", MIXED_TYPES)
@pytest.mark.parametrize("head_dim", [2, 8, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("group", [1, 2, 3, 4, 8])
def test_attention_matches_float64(
    kernels: ModuleType, level: str, kv_type: str, head_dim: int, group: int
) -> None:
    seq = random_sequence(kernels, level, kv_type, (83, 2, head_dim))
    q, scale = queries(19, 2 * group, head_dim), head_dim**-0.5
    for first in (0, 25, 64):
        got = seq.attend(q, first, scale=scale)
        np.testing.assert_allclose(got, seq.reference(q, first, 0, scale), rtol=0, atol=1e-6 * 3)


@pytest.mark.parametrize("window", [1, 17, 32, 33, 100, 4096])
def test_window_hides_older_keys(kernels: ModuleType, level: str, window: int) -> None:
    seq = random_sequence(kernels, level, "f16", (150, 1, 64))
    q = queries(16, 4, 64)
    for first in (0, 31, 100, 134):
        got = seq.attend(q, first, window=window)
        np.testing.assert_allclose(got, seq.reference(q, first, window, 0.1), rtol=0, atol=2e-6)
    if window == 1:
        own = np.repeat(seq.v[134:150], 4, axis=1)
        np.testing.assert_allclose(seq.attend(q, 134, window=1), own, rtol=2.5e-7)


def test_long_context(kernels: ModuleType, level: str) -> None:
    seq = random_sequence(kernels, level, "bf16", (5000, 1, 16))
    q = queries(2, 2, 16)
    for window in (0, 4096):
        got = seq.attend(q, 4998, window=window)
        np.testing.assert_allclose(got, seq.reference(q, 4998, window, 0.1), rtol=0, atol=1e-6)


SHAPES: list[dict[str, Any]] = [
    {"softcap": 5.0},
    {"slopes": np.array([0.5, 0.25, 0.0625, -0.1], np.float32)},
    {"sinks": np.array([-3.0, 0.0, 2.5, 60.0], np.float32)},
    {
        "softcap": 2.0,
        "slopes": np.full(4, 0.01, np.float32),
        "sinks": np.array([1.0, -np.inf, 0.0, -9.0], np.float32),
    },
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "+".join(shape))
@pytest.mark.parametrize("window", [0, 40])
def test_softcap_alibi_and_sinks_match_float64(
    kernels: ModuleType, level: str, shape: dict[str, Any], window: int
) -> None:
    seq = random_sequence(kernels, level, "f16", (600, 2, 32))
    q = queries(19, 4, 32)
    for first in (0, 60, 505, 581):
        got = seq.attend(q, first, window=window, scale=0.5, **shape)
        np.testing.assert_allclose(got, seq.reference(q, first, window, 0.5, **shape), rtol=0, atol=4e-6)
        alone = seq.attend(q, first, window=window, scale=0.5, rows_per_call=1, by_ranges=True, **shape)
        np.testing.assert_array_equal(got.view(np.uint32), alone.view(np.uint32))


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("window", [0, 300, 600])
def test_ranges_of_a_long_context_give_the_same_bits_alone_or_together(
    kernels: ModuleType, level: str, kv_type: str, window: int
) -> None:
    seq = random_sequence(kernels, level, kv_type, (1300, 2, 16))
    q = queries(24, 6, 16)
    for first in (0, 500, 1020, 1276):
        together = seq.attend(q, first, window=window)
        np.testing.assert_allclose(together, seq.reference(q, first, window, 0.1), rtol=0, atol=2e-6)
        for size in (1, 5, 16):
            apart = seq.attend(q, first, window=window, rows_per_call=size, by_ranges=True)
            np.testing.assert_array_equal(together.view(np.uint32), apart.view(np.uint32))


@pytest.mark.parametrize("by_ranges", [False, True])
def test_pages_outside_the_window_are_not_read(kernels: ModuleType, level: str, by_ranges: bool) -> None:
    """Reading what is not there would end the process: old pages' ids name memory that no program may touch."""
    seq = random_sequence(kernels, level, "f16", (1300, 1, 32))
    q = queries(5, 4, 32)
    expected = seq.attend(q, 1290, window=100)
    pages = guarded(seq.pages.bytes)
    first_page = (1290 - 100 + 1) // PAGE_TOKENS
    for page in set(range(len(pages))) - set(seq.page_ids[first_page:41].tolist()):
        protect(pages[page])
    seq.pages.bytes = pages
    got = seq.attend(q, 1290, window=100, by_ranges=by_ranges)
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def guarded(pages: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A copy in memory of its own, at the start of a page of the system."""
    memory = np.frombuffer(mmap.mmap(-1, pages.nbytes), np.uint8).reshape(pages.shape)
    memory[:] = pages
    return memory


def protect(page: npt.NDArray[np.uint8]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(page.ctypes.data), ctypes.c_size_t(page.nbytes), 0) == 0


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("head_dim", [8, 64, 80, 128])
@pytest.mark.parametrize("group", [1, 2, 4, 8])
@pytest.mark.parametrize("window", [0, 5, 40])
def test_rows_have_the_same_bits_however_they_are_grouped(
    kernels: ModuleType, level: str, kv_type: str, head_dim: int, group: int, window: int
) -> None:
    seq = random_sequence(kernels, level, kv_type, (90, 1, head_dim))
    q = queries(37, group, head_dim)
    for first in (0, 30, 53):
        together = seq.attend(q, first, window=window, rows_per_call=16)
        alone = seq.attend(q, first, window=window, rows_per_call=1)
        np.testing.assert_array_equal(together.view(np.uint32), alone.view(np.uint32))
        for size in (3, 5, 11):
            some = seq.attend(q, first, window=window, rows_per_call=size)
            np.testing.assert_array_equal(together.view(np.uint32), some.view(np.uint32))


def test_a_row_is_the_same_as_the_first_row_of_another_run(kernels: ModuleType, level: str) -> None:
    """Decode against prefill: at the time of decode the later tokens do not exist yet."""
    whole = random_sequence(kernels, level, "f16", (75, 2, 64))
    q = queries(75, 8, 64)
    prefill = whole.attend(q, 0, window=50)
    for position in (0, 1, 15, 16, 31, 32, 49, 50, 63, 64, 74):
        so_far = sequence(kernels, level, "f16", whole.k[: position + 1], whole.v[: position + 1])
        decode = so_far.attend(q[position : position + 1], position, window=50)
        np.testing.assert_array_equal(prefill[position].view(np.uint32), decode[0].view(np.uint32))


def test_only_the_asked_rows_are_written(kernels: ModuleType, level: str) -> None:
    seq = random_sequence(kernels, level, "f32", (40, 1, 16))
    q = queries(20, 2, 16)
    part = seq.attend(q, 20, row_begin=7, row_end=12)
    assert np.isnan(part[:7]).all()
    assert np.isnan(part[12:]).all()
    np.testing.assert_array_equal(part[7:12], seq.attend(q, 20)[7:12])


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_later_key_that_is_not_finite_changes_nothing_before_it(
    kernels: ModuleType, level: str, bad: float
) -> None:
    k, v = np.random.default_rng(3).standard_normal((2, 48, 1, 32)).astype(np.float32)
    q = queries(16, 4, 32)
    clean = sequence(kernels, level, "f16", k, v).attend(q, 32, window=20)
    k[40], v[40] = bad, bad
    dirty = sequence(kernels, level, "f16", k, v).attend(q, 32, window=20)
    np.testing.assert_array_equal(clean[:8].view(np.uint32), dirty[:8].view(np.uint32))
    assert np.isnan(dirty[8:]).all()


@pytest.mark.parametrize("order", ["rising", "falling", "spike", "alternating"])
def test_scores_of_ten_thousand_do_not_overflow(kernels: ModuleType, level: str, order: str) -> None:
    n = 100
    ramp = np.linspace(-1e4, 1e4, n)
    spike = np.where(np.arange(n) == 45, 1e4, -1e4)
    alternating = np.where(np.arange(n) % 2, 1e4, -1e4)
    scores = {"rising": ramp, "falling": -ramp, "spike": spike, "alternating": alternating}[order]
    k = np.zeros((n, 1, 8), np.float32)
    k[:, 0, 3] = scores
    v = np.random.default_rng(5).standard_normal((n, 1, 8)).astype(np.float32)
    q = np.zeros((16, 1, 8), np.float32)
    q[:, 0, 3] = 1.0
    seq = sequence(kernels, level, "f32", k, v)
    got = seq.attend(q, n - 16, scale=1.0)
    np.testing.assert_allclose(got, seq.reference(q, n - 16, 0, 1.0), rtol=0, atol=2e-6)


def test_equal_keys_give_the_mean_of_the_values(kernels: ModuleType, level: str) -> None:
    k = np.ones((70, 1, 16), np.float32)
    v = np.random.default_rng(6).standard_normal((70, 1, 16)).astype(np.float32)
    seq = sequence(kernels, level, "f32", k, v)
    got = seq.attend(np.ones((1, 1, 16), np.float32), 69)
    np.testing.assert_allclose(got[0, 0], v[:, 0].astype(np.float64).mean(axis=0), rtol=0, atol=1e-6)


def test_one_key_gives_its_value(kernels: ModuleType, level: str) -> None:
    seq = random_sequence(kernels, level, "bf16", (1, 1, 64))
    for scale in (1.0, 1e-6, 1e4):
        got = seq.attend(queries(1, 4, 64), 0, scale=scale)
        np.testing.assert_allclose(got[0], np.repeat(seq.v[0], 4, axis=0), rtol=2.5e-7)


def test_attention_refuses_pages_that_do_not_cover_the_rows(kernels: ModuleType) -> None:
    seq = random_sequence(kernels, "scalar", "f16", (32, 1, 16))
    seq.page_ids = seq.page_ids[:1]
    with pytest.raises(ValueError, match="does not cover"):
        seq.attend(queries(2, 1, 16), 31)
    seq.page_ids = np.array([99], np.int32)
    with pytest.raises(ValueError, match="page id out of range"):
        seq.attend(queries(1, 1, 16), 31)


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("length", [1, 33, 700])
def test_rows_that_see_the_whole_sequence_match_float64(
    kernels: ModuleType, level: str, kv_type: str, length: int
) -> None:
    seq = random_sequence(kernels, level, kv_type, (length, 2, 32))
    q = queries(length, 4, 32)
    got = seq.attend(q, 0, causal=False)
    expected = seq.reference(q, 0, 0, 0.1, causal=False)
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6)
    assert length == 1 or np.abs(got - seq.attend(q, 0)).max() > 0.1


def test_rows_that_see_the_whole_sequence_do_not_depend_on_the_others(
    kernels: ModuleType, level: str
) -> None:
    seq = random_sequence(kernels, level, "f16", (600, 1, 64))
    q = queries(600, 2, 64)
    expected = seq.attend(q, 0, causal=False)
    for begin, end, rows_per_call in ((0, 600, 1), (0, 600, 7), (17, 31, 16), (599, 600, 16)):
        args = {"row_begin": begin, "row_end": end, "rows_per_call": rows_per_call, "causal": False}
        np.testing.assert_array_equal(seq.attend(q, 0, **args)[begin:end], expected[begin:end])
        np.testing.assert_array_equal(
            seq.attend(q, 0, by_ranges=True, **args)[begin:end], expected[begin:end]
        )
