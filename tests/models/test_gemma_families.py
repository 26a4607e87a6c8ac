"""The Gemma family against Hugging Face transformers: tiny random models, from the folder and as GGUF."""

from __future__ import annotations

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

HEADS = {"head_dim": 24, "pad_token_id": 0}
LINEAR = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
GEMMA3 = {**HEADS, "num_hidden_layers": 7, "sliding_window": 20, "query_pre_attn_scalar": 24}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaConfig", {**HEADS, "num_key_value_heads": 1}),
    "gemma2": ("Gemma2Config", {**HEADS, "sliding_window": 20, "query_pre_attn_scalar": 24}),
    "gemma2, small caps": (
        "Gemma2Config",
        {
            **HEADS,
            "sliding_window": 20,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": ("Gemma3TextConfig", GEMMA3),
    "gemma3, linear rope": ("Gemma3TextConfig", {**GEMMA3, "rope_parameters": LINEAR}),
    "gemma3, other scale": ("Gemma3TextConfig", {**GEMMA3, "query_pre_attn_scalar": 64}),
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(name, folder, ids, logits) of a family's tiny model."""
    folder = tmp_path_factory.mktemp("model")
    ids, logits = tiny_model(folder, *FAMILIES[request.param])
    return request.param, folder, ids, logits


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_logits_match_transformers(model: Any, form: str, backend: str, tmp_path: Path) -> None:
    _, folder, ids, expected = model
    check_logits(folder, ids, expected, form, backend, tmp_path)


def test_a_round_trip_gives_every_tensor_and_setting_back(model: Any, tmp_path: Path) -> None:
    check_round_trip(model[1], tmp_path, norm_tolerance=1.2e-7)  # of one more, in float32


def test_a_file_without_the_original_settings_becomes_the_same_model(model: Any, tmp_path: Path) -> None:
    _, folder, ids, expected = model
    check_foreign_file(folder, ids, expected, tmp_path)


def test_a_folder_made_anew_is_the_same_model(model: Any, tmp_path: Path) -> None:
    _, folder, ids, expected = model
    convert(folder, tmp_path / "again")
    check_logits(tmp_path / "again", ids, expected, "folder", "cpu", tmp_path)


def test_llama_cpp_agrees(model: Any, tmp_path: Path) -> None:
    name, folder, ids, expected = model
    if name == "gemma3, other scale":
        pytest.skip("llama.cpp takes the scale from the size of a head")
    check_llama_cpp(folder, ids, expected, tmp_path)


def test_bits_do_not_depend_on_the_batch(model: Any) -> None:
    _, folder, ids, _ = model
    check_promise(folder, ids)
