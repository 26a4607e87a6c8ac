"""Every format of the folder: sizes, decoding to the bit, encoding. A new file is tested without an edit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from other_decoders import decoded_by_another

from torchless.errors import UnsupportedError
from torchless.quants import Bytes, Format, all_formats, by_id, by_name, stored_type

FORMATS = list(all_formats().values())
ENCODERS = [form for form in FORMATS if form.encode_blocks is not None]


def name_of(form: Format) -> str:
    return form.name


def assert_decodes_like_another(form: Format, raw: Bytes) -> None:
    expected = decoded_by_another(form.name, raw)
    found = form.decode(raw)
    assert found.dtype == np.float32 and found.shape == expected.shape
    not_a_number = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), not_a_number)
    np.testing.assert_array_equal(
        found.view(np.uint32)[~not_a_number], expected.view(np.uint32)[~not_a_number]
    )


@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_random_blocks_decode_to_the_bit(form: Format) -> None:
    raw = np.random.default_rng(form.id).integers(0, 256, (100_000, form.block_bytes), dtype=np.uint8)
    assert_decodes_like_another(form, raw)


@pytest.mark.parametrize("bits", [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x3C00, 0x7C00, 0xFE00])
@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_extreme_scales_decode_to_the_bit(form: Format, bits: int) -> None:
    """Zero of both signs, subnormal, largest, one, infinite, NaN in every field of two bytes."""
    raw = np.random.default_rng(bits).integers(0, 256, (512, form.block_bytes), dtype=np.uint8)
    for offset, size in form.wide_fields:
        raw[:, offset + size - 2 : offset + size] = np.frombuffer(np.uint16(bits).tobytes(), np.uint8)
    assert_decodes_like_another(form, raw)


@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_decoding_keeps_rows_and_refuses_partial_blocks(form: Format) -> None:
    raw = np.zeros((2, 3, 2 * form.block_bytes), np.uint8)
    assert form.decode(raw).shape == (2, 3, 2 * form.block_elements)
    assert form.decode(raw[:0]).shape == (0, 3, 2 * form.block_elements)
    assert form.num_bytes(6 * form.block_elements) == 6 * form.block_bytes
    if form.block_bytes > 1:
        with pytest.raises(ValueError, match="whole number of blocks"):
            form.decode(np.zeros(form.block_bytes + 1, np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        form.decode(np.zeros(form.block_bytes, np.int32))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_sizes_are_those_of_gguf(form: Format) -> None:
    gguf = pytest.importorskip("gguf")
    if form.name not in gguf.GGMLQuantizationType.__members__:
        pytest.skip("newer than the package")
    kind = gguf.GGMLQuantizationType[form.name]
    assert form.id == kind and gguf.GGML_QUANT_SIZES[kind] == (form.block_elements, form.block_bytes)
    assert by_id(form.id) is form and by_name(form.name) is form


def test_types_that_are_not_run_are_known_by_name_and_size() -> None:
    gguf = pytest.importorskip("gguf")
    for kind, (elements, num_bytes) in gguf.GGML_QUANT_SIZES.items():
        known = stored_type(int(kind))
        assert known is not None and known.name == kind.name and stored_type(kind.name) == known
        if kind.name != "Q8_1":  # The package counts 4 bytes too many: two halves and 32 bytes are 36.
            assert (known.block_elements, known.block_bytes) == (elements, num_bytes)
    assert stored_type(4) is None and stored_type(9999) is None


def test_unsupported_types_are_named() -> None:
    for key, name in ((15, "Q8_K"), (9, "Q8_1"), (9999, "9999")):
        with pytest.raises(UnsupportedError, match=name):
            by_id(key)
    with pytest.raises(UnsupportedError, match=r"'q4_k'.*Q4_K"):
        by_name("q4_k")


def test_a_format_is_found_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(
        "import numpy as np\nfrom torchless.quants import Format\n"
        "FORMAT = Format('TOY', 200, 1, 1, lambda blocks: blocks.astype(np.float32))\n"
    )
    program = (
        "import sys, numpy as np, torchless.quants as quants\n"
        f"quants.__path__.append({str(tmp_path)!r})\n"
        "assert quants.by_id(200).decode(np.array([7], np.uint8)) == [7.0]\n"
        "assert list(quants.all_formats())[-1] == 'TOY'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent.parent)


# -- encoders ----------------------------------------------------------------------------------------


def samples(form: Format) -> np.ndarray:
    """Rows of many scales, with outliers, constants, one sign, zeros."""
    rng = np.random.default_rng(5)
    scales = 10.0 ** rng.uniform(-2, 3, (400, 1))  # For smaller weights half precision scales are subnormal.
    x = rng.standard_normal((400, 256)) * scales
    x[::7, ::50] *= 20
    x[3], x[4], x[5], x[6] = 0, 1, -0.25, np.abs(x[6])
    x[7, 1:] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("form", ENCODERS, ids=name_of)
def test_encoding_is_near_and_repeatable(form: Format) -> None:
    x = samples(form)
    raw = form.encode(x)
    assert raw.dtype == np.uint8 and raw.shape == (400, form.num_bytes(256))
    np.testing.assert_array_equal(raw, form.encode(x))
    np.testing.assert_array_equal(raw[10:12], form.encode(x[10:12]))
    bits = 8 * form.block_bytes / form.block_elements
    limits = {32.0: 0.0, 16.0: 2.0**-8, 8.5: 0.02, 6.5625: 0.05, 6.0: 0.1, 5.5: 0.12, 5.0: 0.2, 4.5: 0.2}
    limits |= {4.25: 0.25, 3.4375: 0.3, 2.625: 0.5}
    limit = 0.4 if form.name == "IQ3_S" else limits[bits]  # IQ3_S has no zero: zeros beside a peak cost most.
    error = np.linalg.norm(form.decode(raw).astype(np.float64) - x, axis=1)
    size = np.linalg.norm(x.astype(np.float64), axis=1)
    assert (error <= limit * size).all()


@pytest.mark.parametrize("form", ENCODERS, ids=name_of)
def test_zeros_stay_zeros(form: Format) -> None:
    np.testing.assert_array_equal(form.decode(form.encode(np.zeros(512, np.float32))), 0)


@pytest.mark.parametrize("name", ["q4_0_64", "q4_1_64", "q5_0_64", "q5_1_64", "q8_0_64"])
def test_simple_encoders_give_the_bytes_of_ggml(shared_data: Callable[[str], Path], name: str) -> None:
    folder = shared_data("quant-blocks")
    form = by_name(name[:4].upper())
    x = np.fromfile(folder / f"{name}_noim_input.bin", "<f4")
    expected = np.fromfile(folder / f"{name}_noim_expected.bin", np.uint8)
    np.testing.assert_array_equal(form.encode(x), expected)


@pytest.mark.parametrize("name", ["q2_k_512", "q3_k_512", "q4_k_512", "q5_k_512", "q6_k_512", "iq4_nl_64"])
def test_fitting_encoders_are_as_good_as_ggml(shared_data: Callable[[str], Path], name: str) -> None:
    folder = shared_data("quant-blocks")
    form = by_name(name.rpartition("_")[0].upper())
    x = np.fromfile(folder / f"{name}_noim_input.bin", "<f4")
    reference = form.decode(np.fromfile(folder / f"{name}_noim_expected.bin", np.uint8))
    found = form.decode(form.encode(x))
    assert np.square(found - x).sum() <= 1.03 * np.square(reference - x).sum()


def test_mxfp4_encoder_gives_the_bytes_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    x = samples(by_name("MXFP4"))
    x[8], x[9] = 1e-35, 1e35
    x[10, :8] = [0.25, -0.25, 0.75, 1.25, 2.5, -3.5, 5.0, 6.0]  # Ties.
    expected = gguf.quants.quantize(x, gguf.GGMLQuantizationType.MXFP4)
    np.testing.assert_array_equal(by_name("MXFP4").encode(x), expected)


def test_q8_0_rounds_half_away_from_zero() -> None:
    x = np.zeros(32, np.float32)
    x[:5] = [127, 0.5, -0.5, 1.5, -2.5]
    np.testing.assert_array_equal(by_name("Q8_0").encode(x)[2:7].view(np.int8), [127, 1, -1, 2, -3])


def test_half_formats_round_like_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(3).integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate(
        [bits.view(np.float32), np.float32([np.inf, -np.inf, 0.0, -0.0, 1.0039062, 1.0117188])]
    )
    x = x[~np.isnan(x)]
    found = by_name("BF16").encode(x).view(np.uint16)
    np.testing.assert_array_equal(found, x.astype(ml_dtypes.bfloat16).view(np.uint16))
    assert np.isnan(by_name("BF16").decode(by_name("BF16").encode(np.float32([np.nan])))).all()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            by_name("F16").encode(x).view(np.uint16), x.astype(np.float16).view(np.uint16)
        )


@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_swapping_bytes_twice_changes_nothing(form: Format) -> None:
    raw = np.random.default_rng(1).integers(0, 256, 4 * form.block_bytes, dtype=np.uint8)
    swapped = form.byteswapped(raw)
    assert (swapped != raw).any() == bool(form.wide_fields) and not np.shares_memory(swapped, raw)
    np.testing.assert_array_equal(form.byteswapped(swapped), raw)
