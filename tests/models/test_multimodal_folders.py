"""The language model inside folders of models that also see images, against the whole model of transformers on text."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import logits_of, open_executor
from transformers_models import LENGTH, SIZES, check_llama_cpp, check_logits, check_promise, make_model

from torchless.conversion.convert import convert

transformers = pytest.importorskip("transformers")

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
GEMMA3 = {"num_hidden_layers": 7, "head_dim": 24, "sliding_window": 20, "query_pre_attn_scalar": 24}
GROWTH = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.5,
}
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mistral small 3.1": (
        "Mistral3",
        {"model_type": "mistral", "head_dim": 24, "sliding_window": None, "tie_word_embeddings": False},
        {"model_type": "pixtral", "head_dim": 16},
    ),
    "ministral3": (
        "Mistral3",
        {"model_type": "ministral3", "head_dim": 24, "rope_parameters": GROWTH},
        {"model_type": "pixtral", "head_dim": 16},
    ),
    "gemma3": (
        "Gemma3",
        {
            "model_type": "gemma3_text",
            **GEMMA3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        {"model_type": "siglip_vision_model"},
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(folder, ids, logits) of a tiny model that sees images, asked for text."""
    name, text, vision = FAMILIES[request.param]
    if not hasattr(transformers, f"{name}Config"):
        pytest.skip(f"transformers {transformers.__version__} has no {name}Config")
    folder = tmp_path_factory.mktemp("model")
    sizes = {key: value for key, value in SIZES.items() if not key.endswith("token_id")}
    config = getattr(transformers, f"{name}Config")(
        text_config={**sizes, "pad_token_id": 0, **text},
        vision_config={**VISION, **vision},
        mm_tokens_per_image=1,
        image_token_index=399,
        image_token_id=399,
        tie_word_embeddings=text.get("tie_word_embeddings", True),
    )
    ids, logits = make_model(
        folder, config, getattr(transformers, f"{name}ForConditionalGeneration"), vocab_size=399
    )
    return folder, ids, logits


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_logits_match_transformers(model: Any, form: str, backend: str, tmp_path: Path) -> None:
    folder, ids, expected = model
    check_logits(folder, ids, expected, form, backend, tmp_path)


def test_llama_cpp_agrees(model: Any, tmp_path: Path) -> None:
    check_llama_cpp(*model, tmp_path)


def test_bits_do_not_depend_on_the_batch(model: Any) -> None:
    check_promise(*model[:2])


def test_tensors_of_images_are_passed_over_with_a_word_in_the_log(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "torchless"):
        open_executor(model[0], "reference")
    assert "tensors that read images or sound are passed over" in caplog.text


def test_the_way_back_is_a_folder_of_the_language_model(model: Any, tmp_path: Path) -> None:
    folder, ids, expected = model
    convert(folder, tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["architectures"][0].endswith("ForCausalLM") and "vision_config" not in config
    network = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "back", attn_implementation="eager"
    )
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        logits = network.float()(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_names_as_most_folders_are_published_with_are_read(model: Any, tmp_path: Path) -> None:
    """``language_model.model.`` rather than ``model.language_model.``, or the other way round."""
    from safetensors.numpy import load_file, save_file

    folder, ids, expected = model
    tensors = {}
    for name, values in load_file(folder / "model.safetensors").items():
        if name.startswith("language_model."):
            new = name.replace("language_model.model.", "model.language_model.").replace(
                "language_model.lm_head", "lm_head"
            )
        else:
            new = name.replace("model.language_model.", "language_model.model.")
            new = new.replace("lm_head.", "language_model.lm_head.").removeprefix("model.")
        tensors[new] = values
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    found = logits_of(open_executor(tmp_path, "reference"), ids[0], LENGTH)
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4)
