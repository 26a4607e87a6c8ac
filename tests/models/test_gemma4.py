"""Gemma 4 against Hugging Face transformers: tiny random models of its kinds, from the folder and as GGUF."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import logits_of, open_executor
from family_checks import (  # noqa: F401
    family_fixture,
    test_bits_do_not_depend_on_the_batch,
    test_llama_cpp_agrees,
    test_logits_match_transformers,
)
from transformers_models import LENGTH, VOCAB, tiny_model

from torchless.conversion.convert import convert
from torchless.errors import FormatError, UnsupportedError

LOCAL, WHOLE = "sliding_attention", "full_attention"
COMMON = {
    "head_dim": 16,
    "global_head_dim": 32,
    "sliding_window": 20,
    "pad_token_id": 0,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": VOCAB,
    "final_logit_softcapping": 30.0,
    "num_hidden_layers": 5,
    "layer_types": [LOCAL, LOCAL, WHOLE, LOCAL, WHOLE],
}
SMALL = {
    **COMMON,
    "num_key_value_heads": 1,
    "hidden_size_per_layer_input": 24,
    "num_hidden_layers": 7,
    "layer_types": [LOCAL, LOCAL, LOCAL, WHOLE, LOCAL, LOCAL, WHOLE],
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
}
LARGE = {
    **COMMON,
    "head_dim": 24,
    "global_head_dim": 48,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
}
EXPERTS = {
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 3,
    "moe_intermediate_size": 32,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "E2B": ("Gemma4TextConfig", SMALL),
    "E4B, other heads": (
        "Gemma4TextConfig",
        {
            **SMALL,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "global_head_dim": 40,
            "use_double_wide_mlp": False,
        },
    ),
    "31B": ("Gemma4TextConfig", LARGE),
    "26B-A4B": ("Gemma4TextConfig", {**LARGE, **EXPERTS}),
    "unified": ("Gemma4UnifiedTextConfig", LARGE),
}


model = family_fixture(FAMILIES)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """(folder, ids, logits) of one that shares caches."""
    folder = tmp_path_factory.mktemp("small")
    return folder, *tiny_model(folder, *FAMILIES["E2B"])


def test_settings_as_published_are_the_same_model(small: Any, tmp_path: Path) -> None:
    """Folders from before transformers 5.24 name the sizes of layers without a window."""
    folder, ids, expected = small
    config = json.loads((folder / "config.json").read_text())
    config.pop("per_layer_config")
    found = logits_with(
        folder, tmp_path, {**config, "global_head_dim": 32, "num_global_key_value_heads": None}, ids
    )
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4)


def test_the_language_model_of_a_checkpoint_with_images_runs(
    small: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.numpy import load_file, save_file

    folder, ids, expected = small
    tensors = load_file(folder / "model.safetensors")
    inner = {
        f"model.language_model.{name.removeprefix('model.')}": values for name, values in tensors.items()
    }
    config = json.loads((folder / "config.json").read_text())
    whole = {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "text_config": config,
        "vision_config": {"hidden_size": 8},
    }
    others = {
        "model.vision_tower.x.weight": np.ones((2, 2), np.float32),
        "model.embed_audio.y": np.ones(3, np.float32),
    }
    with caplog.at_level(logging.INFO, "torchless"):
        found = logits_with(folder, tmp_path, whole, ids, lambda path: save_file({**inner, **others}, path))
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4)
    assert "2 tensors that read images or sound are passed over" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ({"hidden_activation": "silu"}, "hidden_activation"),
        ({"vocab_size_per_layer_input": 77}, "vocab_size_per_layer_input"),
        ({"attention_k_eq_v": True}, "attention_k_eq_v"),
        ({"num_kv_shared_layers": 7}, "shared_kv_layers"),
        ({"layer_types": ["chunked_attention"] * 7}, "layer_types"),
        ({"per_layer_config": {"3": {"intermediate_size": 8}}}, "per_layer_config"),
        (
            {
                "rope_parameters": {
                    LOCAL: {"rope_type": "default", "rope_theta": 1e4},
                    WHOLE: {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0},
                }
            },
            r"rope_parameters\.full_attention\.rope_type",
        ),
        ({"new_setting": 1}, "new_setting"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    small: Any, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    folder, ids, _ = small
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises((UnsupportedError, FormatError), match=words):
        logits_with(folder, tmp_path, {**config, **change}, ids)


def test_a_folder_is_not_made_of_a_gguf_file(small: Any, tmp_path: Path) -> None:
    [path] = convert(small[0], tmp_path / "model.gguf")
    with pytest.raises(UnsupportedError, match="gemma4 models as GGUF files only"):
        convert(path, tmp_path / "back")


def test_layers_that_share_a_cache_take_no_memory_of_their_own(small: Any) -> None:
    pytest.importorskip("torchless._core")
    from torchless.backends.base import PAGE_TOKENS

    executor = open_executor(small[0], "cpu", kv="f32", threads=1)
    one_token = 2 * 4 * (3 * 16 + 32)  # three layers with a window, one without
    assert executor.memory_bytes()["kv_page"] == -(-PAGE_TOKENS * one_token // 4096) * 4096


def logits_with(folder: Path, to: Path, config: dict[str, Any], ids: Any, save: Any = None) -> Any:
    """Logits of the first sequence by a model with other settings, or another file of weights."""
    weights = to / "model.safetensors"
    if save is None:
        weights.symlink_to(folder / "model.safetensors")
    else:
        save(weights)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (to / name).symlink_to(folder / name)
    (to / "config.json").write_text(json.dumps(config))
    return logits_of(open_executor(to, "reference", kv="f32", threads=1), ids[0], LENGTH)
