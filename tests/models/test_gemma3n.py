"""Gemma 3n against Hugging Face transformers: tiny random models, from the folder and as GGUF."""

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
    test_logits_match_transformers,
)
from transformers_models import LENGTH, VOCAB, check_llama_cpp, tiny_model

from torchless.conversion.convert import convert
from torchless.errors import FormatError, UnsupportedError

LOCAL, WHOLE = "sliding_attention", "full_attention"
COMMON: dict[str, Any] = {
    "head_dim": 16,
    "sliding_window": 20,
    "pad_token_id": 0,
    "vocab_size_per_layer_input": VOCAB,
    "hidden_size_per_layer_input": 24,
    "laurel_rank": 16,
}
SMALL = {
    **COMMON,
    "num_hidden_layers": 6,
    "layer_types": [LOCAL, LOCAL, WHOLE, LOCAL, LOCAL, WHOLE],
    "num_kv_shared_layers": 2,
    "activation_sparsity_pattern": [0.9, 0.5, 0.0, 0.0, 0.95, 0.0],
}
# llama.cpp knows only the published numbers: 20 layers with caches, 10 with gates that are cut, a rank of 64.
PUBLISHED = {
    **COMMON,
    "hidden_size": 64,
    "num_hidden_layers": 24,
    "num_kv_shared_layers": 4,
    "hidden_size_per_layer_input": 256,
    "intermediate_size": 2048,
    "laurel_rank": 64,
    "head_dim": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "small": SMALL,
    "three streams, the second active": {**SMALL, "altup_num_inputs": 3, "altup_active_idx": 1},
}


model = family_fixture({name: ("Gemma3nTextConfig", settings) for name, settings in FAMILIES.items()})


def test_llama_cpp_agrees(tmp_path: Path) -> None:
    """24 layers, behind which transformers' own single precision is off by 1e-4: the tests above have fewer.

    Published files hold keys and values of the last layers, which nobody reads but llama.cpp asks for. It takes the
    deviation of a gate by n - 1 where transformers takes it by n: with 2048 numbers that is a share of 6e-6.
    """
    from safetensors.numpy import load_file, save_file

    ids, expected = tiny_model(tmp_path / "model", "Gemma3nTextConfig", PUBLISHED)
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    for name in ("k_proj", "v_proj", "k_norm"):
        like = tensors[f"model.layers.0.self_attn.{name}.weight"]
        tensors |= {f"model.layers.{i}.self_attn.{name}.weight": like for i in range(20, 24)}
    save_file(tensors, file, {"format": "pt"})
    check_llama_cpp(tmp_path / "model", ids, expected, tmp_path, most=1e-5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    folder = tmp_path_factory.mktemp("small")
    return folder, *tiny_model(folder, "Gemma3nTextConfig", SMALL)


def test_a_checkpoint_with_images_and_more_tokens_than_text_has_runs(
    small: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As published: tokens of images and sound have no embedding for the layers; old names of the rotation's bases."""
    from safetensors.numpy import load_file, save_file

    folder, ids, expected = small
    tensors = load_file(folder / "model.safetensors")
    inner = {f"model.language_model.{name.removeprefix('model.')}": x for name, x in tensors.items()}
    table = inner["model.language_model.embed_tokens.weight"]
    more = np.ones((16, table.shape[1]), np.float32)
    inner["model.language_model.embed_tokens.weight"] = np.concatenate([table, more])
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"vocab_size": VOCAB + 16, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    whole = {
        "architectures": ["Gemma3nForConditionalGeneration"],
        "model_type": "gemma3n",
        "text_config": config,
        "vision_config": {"hidden_size": 8},
    }
    others = {"model.vision_tower.x.weight": np.ones((2, 2), np.float32)}
    with caplog.at_level(logging.INFO, "torchless"):
        found = logits_with(folder, tmp_path, whole, ids, lambda path: save_file({**inner, **others}, path))
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4)
    assert "1 tensor" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_activation": "silu"}, "hidden_activation"),
        ({"altup_correct_scale": False}, "altup_correct_scale"),
        ({"altup_active_idx": 4}, "altup.active_idx"),
        ({"num_kv_shared_layers": 6}, "shared_kv_layers"),
        ({"layer_types": ["chunked_attention"] * 6}, "layer_types"),
        ({"activation_sparsity_pattern": [2.0] * 6}, "activation_sparsity_pattern"),
        ({"new_setting": 1}, "new_setting"),
        (
            {"rope_parameters": {WHOLE: {"rope_type": "yarn", "factor": 4.0}, LOCAL: {}}},
            r"rope_parameters\.full_attention\.",
        ),
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
    with pytest.raises(UnsupportedError, match="gemma3n models as GGUF files only"):
        convert(path, tmp_path / "back")


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
