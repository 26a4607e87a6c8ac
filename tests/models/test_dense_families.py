"""Families without experts against Hugging Face transformers: tiny random models, from the folder and as GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers_models import check_llama_cpp, check_logits, check_promise, check_round_trip, tiny_model

LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.7, 2.0, 2.5, 3.0, 4.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0],
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2Config", {}),
    "qwen2, tied": ("Qwen2Config", {"tie_word_embeddings": True, "rope_theta": 1e6}),
    "phi3": ("Phi3Config", {"pad_token_id": 0, "sliding_window": 20}),
    "phi3, LongRoPE": ("Phi3Config", {"pad_token_id": 0, "rope_parameters": LONG_ROPE}),
    "granite": (
        "GraniteConfig",
        {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.4,
            "attention_multiplier": 0.15,
            "logits_scaling": 0.7,
        },
    ),
    "olmo2": ("Olmo2Config", {"pad_token_id": 0}),
    "smollm3": ("SmolLM3Config", {"num_hidden_layers": 5, "pad_token_id": 0}),
    "qwen3": ("Qwen3Config", {"head_dim": 24}),
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
    check_round_trip(model[1], tmp_path)


def test_llama_cpp_agrees(model: Any, tmp_path: Path) -> None:
    name, folder, ids, expected = model
    if name == "phi3":
        pytest.skip("llama.cpp lets Phi-3 see beyond its window")
    check_llama_cpp(folder, ids, expected, tmp_path)


def test_bits_do_not_depend_on_the_batch(model: Any) -> None:
    _, folder, ids, _ = model
    check_promise(folder, ids)
