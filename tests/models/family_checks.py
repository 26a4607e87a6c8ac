"""What every family is asked: tests that the modules of this folder import, each with tiny models of its own.

A module has ``FAMILIES`` (name -> class of the configuration, settings) and ``model = family_fixture(FAMILIES)``;
``NOT_IN_LLAMA_CPP`` (name -> why), ``ONE_WAY`` (beginnings of names of what is written as GGUF files only),
``NORM_TOLERANCE`` (beginning of names -> what norms may lose in a round trip) and ``REFERENCE_TOLERANCE`` (most
difference of both sides' float64 logits) where there is something to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers_models import (
    check_foreign_file,
    check_llama_cpp,
    check_logits,
    check_promise,
    check_round_trip,
    tiny_model,
)

from torchless.conversion.convert import convert
from torchless.errors import UnsupportedError


def family_fixture(families: Mapping[str, tuple[str, dict[str, Any]]]) -> Any:
    """The fixture ``model``: (name, folder, ids, logits) of each family's tiny model."""

    @pytest.fixture(scope="module", params=families, name="model")
    def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp("model")
        ids, logits = tiny_model(folder, *families[request.param])
        return request.param, folder, ids, logits

    return make


def is_one_way(request: pytest.FixtureRequest, name: str) -> bool:
    """Whether the module says that the family is written as GGUF files only."""
    return name.startswith(tuple(getattr(request.module, "ONE_WAY", ())))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_logits_match_transformers(
    model: Any, form: str, backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _, folder, ids, expected = model
    check_logits(
        folder, ids, expected, form, backend, tmp_path, getattr(request.module, "REFERENCE_TOLERANCE", 2e-6)
    )


def test_bits_do_not_depend_on_the_batch(model: Any) -> None:
    _, folder, ids, _ = model
    check_promise(folder, ids)


def test_llama_cpp_agrees(model: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name, folder, ids, expected = model
    reasons = getattr(request.module, "NOT_IN_LLAMA_CPP", {})
    if name in reasons:
        pytest.skip(reasons[name])
    check_llama_cpp(folder, ids, expected, tmp_path)


def test_a_round_trip_gives_every_tensor_and_setting_back(
    model: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, folder, _, _ = model
    if is_one_way(request, name):
        convert(folder, tmp_path / "model.gguf")
        with pytest.raises(UnsupportedError, match="as GGUF files only"):
            convert(tmp_path / "model.gguf", tmp_path / "back")
        return
    tolerances = getattr(request.module, "NORM_TOLERANCE", {})
    most = max((value for start, value in tolerances.items() if name.startswith(start)), default=0.0)
    check_round_trip(folder, tmp_path, norm_tolerance=most)


def test_a_file_without_the_original_settings_becomes_the_same_model(
    model: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, folder, ids, expected = model
    if is_one_way(request, name):
        pytest.skip("written as GGUF files only")
    check_foreign_file(folder, ids, expected, tmp_path)


def test_a_folder_made_anew_is_the_same_model(
    model: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, folder, ids, expected = model
    if is_one_way(request, name):
        pytest.skip("written as GGUF files only")
    convert(folder, tmp_path / "again")
    check_logits(tmp_path / "again", ids, expected, "folder", "cpu", tmp_path)
