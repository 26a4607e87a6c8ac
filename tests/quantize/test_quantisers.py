"""The native quantisers: bytes of the slow twins, the same bytes at every level, errors no greater than theirs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from torchless import quants
from torchless._core import has_quantiser, isa_levels, quantise_rows
from torchless.quants import Format

FORMATS = [form for form in quants.all_formats().values() if has_quantiser(form.id)]
EXACT = [
    form
    for form in FORMATS
    if form.name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")
]
K_TYPES = [form for form in FORMATS if form.block_elements == 256 and form.encode_blocks is not None]


def weights(rows: int = 24, columns: int = 768) -> npt.NDArray[np.float32]:
    """Heavy tails, an empty row, a constant row, positive rows, huge and tiny rows."""
    values = np.random.default_rng(4).standard_t(4, (rows, columns)).astype(np.float32) * np.float32(0.02)
    values[0], values[1] = 0.0, 0.125
    values[2] = np.abs(values[2]) + 0.5
    values[3] *= 1e-6
    values[4] *= 1e4
    values[5, 1::2] = -values[5, ::2]  # peaks of both signs
    return values


def quantise(
    values: npt.NDArray[np.float32],
    form: Format,
    importance: npt.NDArray[np.float32] | None = None,
    level: str = "",
    threads: int = 1,
) -> npt.NDArray[np.uint8]:
    return quantise_rows(values.view(np.uint8), "F32", form.id, importance, threads, level)


@pytest.mark.parametrize("form", EXACT, ids=lambda form: form.name)
def test_simple_formats_have_the_bytes_of_the_slow_twin(form: Format) -> None:
    values = weights()
    np.testing.assert_array_equal(quantise(values, form), form.encode(values))


@pytest.mark.parametrize("form", EXACT, ids=lambda form: form.name)
def test_simple_formats_have_the_bytes_of_the_gguf_package(form: Format) -> None:
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(form.id).standard_t(4, (256, 4096)).astype(np.float32)
    short = quants.by_name("BF16").decode(
        quants.by_name("BF16").encode(values)
    )  # such weights meet more ties
    for x in (values, short):
        expected = gguf.quants.quantize(x, gguf.GGMLQuantizationType[form.name])
        np.testing.assert_array_equal(quantise(x, form), expected.view(np.uint8))


@pytest.mark.parametrize("form", K_TYPES, ids=lambda form: form.name)
def test_k_quants_err_no_more_than_the_slow_twin(form: Format) -> None:
    values = weights()[6:]
    native, twin = form.decode(quantise(values, form)), form.decode(form.encode(values))
    counts = np.abs(values)  # between the weightings of the formats
    assert (counts * (native - values) ** 2).sum() <= 1.01 * (counts * (twin - values) ** 2).sum()


@pytest.mark.parametrize("with_importance", [False, True], ids=["plain", "importance"])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_level_and_number_of_threads_gives_the_same_bytes(form: Format, with_importance: bool) -> None:
    values = weights()
    importance = None
    if with_importance:
        importance = np.random.default_rng(1).random(values.shape[1], np.float32) ** 4
    expected = quantise(values, form, importance)
    for level in isa_levels():
        np.testing.assert_array_equal(quantise(values, form, importance, level), expected)
    many = np.concatenate([values] * 20)
    np.testing.assert_array_equal(
        quantise(many, form, importance, threads=3), np.concatenate([expected] * 20)
    )


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_rows_are_independent_and_zero_stays_zero(form: Format) -> None:
    values = weights()
    whole = quantise(values, form)
    for row in range(len(values)):
        np.testing.assert_array_equal(quantise(values[row : row + 1], form), whole[row : row + 1])
    assert not form.decode(whole[:1]).any()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_importance_lowers_the_error_of_important_columns(form: Format) -> None:
    if form.block_elements == 1 or form.name in ("Q8_0", "MXFP4"):
        pytest.skip("has nothing to choose")
    values = np.random.default_rng(2).standard_normal((64, 1024)).astype(np.float32)
    importance = np.where(np.arange(1024) % 8 == 0, 100.0, 1.0).astype(np.float32)
    plain, aware = form.decode(quantise(values, form)), form.decode(quantise(values, form, importance))
    assert (importance * (aware - values) ** 2).sum() < (importance * (plain - values) ** 2).sum()


def test_half_precision_rows_are_widened_first() -> None:
    form = quants.by_name("Q4_K")
    for name in ("F16", "BF16"):
        stored = quants.by_name(name).encode(weights()[:4])
        wide = quants.by_name(name).decode(stored)
        np.testing.assert_array_equal(quantise_rows(stored, name, form.id), quantise(wide, form))


def test_what_cannot_be_quantised_is_refused_by_name() -> None:
    values = weights()
    with pytest.raises(ValueError, match="700 weights is not a whole number of blocks of 256"):
        quantise_rows(values[:, :700].copy().view(np.uint8), "F32", 12)
    with pytest.raises(ValueError, match="importance has 3 columns"):
        quantise_rows(values.view(np.uint8), "F32", 12, np.ones(3, np.float32))
    with pytest.raises(ValueError, match="no quantiser for GGUF type 16"):
        quantise_rows(values.view(np.uint8), "F32", 16)
    values[7, 3] = np.nan
    with pytest.raises(ValueError, match="row 7 holds a weight that is not finite"):
        quantise_rows(values.view(np.uint8), "F32", 12)
