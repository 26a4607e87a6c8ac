"""Families without experts against Hugging Face transformers: tiny random models, from the folder and as GGUF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from family_checks import (  # noqa: F401
    family_fixture,
    test_a_file_without_the_original_settings_becomes_the_same_model,
    test_a_folder_made_anew_is_the_same_model,
    test_a_round_trip_gives_every_tensor_and_setting_back,
    test_bits_do_not_depend_on_the_batch,
    test_llama_cpp_agrees,
    test_logits_match_transformers,
)
from transformers_models import tiny_model

from torchless.errors import UnsupportedError
from torchless.models import record_plan
from torchless.weights.open import open_source

LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.7, 2.0, 2.5, 3.0, 4.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0],
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
HEADS = {"head_dim": 24, "pad_token_id": 0}
LINEAR = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
GEMMA3 = {**HEADS, "num_hidden_layers": 7, "sliding_window": 20, "query_pre_attn_scalar": 24}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("MistralConfig", {"head_dim": 24, "sliding_window": None}),
    "mistral, window": ("MistralConfig", {"sliding_window": 20}),
    "ministral, some windows": (
        "MinistralConfig",
        {"head_dim": 16, "sliding_window": 20, "num_hidden_layers": 3, "layer_types": KINDS},
    ),
    "ministral3": (
        "Ministral3Config",
        {
            "head_dim": 24,
            "tie_word_embeddings": True,
            "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5},
        },
    ),
    "ministral3, other magnitude": (
        "Ministral3Config",
        {
            "head_dim": 24,
            "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5, "llama_4_scaling_beta": 0.1},
        },
    ),
    "qwen2": ("Qwen2Config", {}),
    "qwen2, tied": ("Qwen2Config", {"tie_word_embeddings": True, "rope_theta": 1e6}),
    "phi2": ("PhiConfig", {"num_key_value_heads": 4, "rope_parameters": PARTIAL}),
    "phi3, partial": ("Phi3Config", {"pad_token_id": 0, "rope_parameters": {**PARTIAL, "rope_theta": 5e5}}),
    "phi3": ("Phi3Config", {"pad_token_id": 0, "sliding_window": 20}),
    "phi3, LongRoPE": ("Phi3Config", {"pad_token_id": 0, "rope_parameters": LONG_ROPE}),
    "phi3, LongRoPE beyond its training": (
        "Phi3Config",
        {"pad_token_id": 0, "rope_parameters": LONG_ROPE, "original_max_position_embeddings": 32},
    ),
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

NOT_IN_LLAMA_CPP = {
    "phi3": "llama.cpp lets Phi-3 see beyond its window",
    "mistral, window": "llama.cpp lets Mistral see beyond its window",
    "ministral, some windows": "llama.cpp lets Mistral see beyond its window",
    "gemma3, other scale": "llama.cpp takes the scale from the size of a head",
}


NORM_TOLERANCE = {"gemma": 1.2e-7}
"""Folders hold Gemma's norms less one; one more is rounded to float32."""

model = family_fixture(FAMILIES)


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("ministral, some windows", {"layer_types": ["chunked_attention"] * 3}, "layer_types"),
        (
            "ministral3",
            {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.5}},
            "rope_scaling.mscale",
        ),
        ("ministral3", {"rope_parameters": {**YARN, "rope_type": "dynamic"}}, "'dynamic'"),
        ("ministral3", {"partial_rotary_factor": 0.5}, "of 24 elements of a head turn"),
        ("phi2", {"qk_layernorm": True}, "qk_layernorm"),
        ("mistral", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
    ],
)
def test_settings_that_are_not_computed_are_refused_by_name(
    name: str, changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    tiny_model(tmp_path, *FAMILIES[name])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UnsupportedError, match=named):
        record_plan(open_source(tmp_path))
