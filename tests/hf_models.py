"""Small Hugging Face models made on the spot: random weights, a byte-level BPE tokenizer trained on a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

WIDTH, HEADS, KV_HEADS, HEAD, HIDDEN, LAYERS = 64, 4, 2, 16, 128, 2

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": [1, 2],
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
TEMPLATE = "{% for m in messages %}<|start|>{{ m['content'] }}<|stop|>{% endfor %}"
DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_hf_model(
    folder: Path, dtype: str = "BF16", *, bias: bool = False, tied: bool = False, **changes: Any
) -> Path:
    """Fills a folder; `changes` replaces configuration keys."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(folder) + 3  # more rows than tokens, as many models have
    config = {
        **CONFIG,
        "vocab_size": vocab_size,
        "tie_word_embeddings": tied,
        "attention_bias": bias,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(
        json.dumps(
            {"bos_token_id": 0, "eos_token_id": [1, 2], "do_sample": True, "temperature": 0.6, "top_p": 0.9}
        )
    )
    save_file(random_weights(vocab_size, DTYPES[dtype], bias=bias, tied=tied), folder / "model.safetensors")
    return folder


def random_weights(
    vocab_size: int, dtype: np.dtype[Any], *, bias: bool = False, tied: bool = False
) -> dict[str, np.ndarray]:
    """All tensors of such a model by their Hugging Face names."""
    random = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab_size, WIDTH)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (rows * HEAD, WIDTH)
            if bias:
                shapes[f"{prefix}self_attn.{name}_proj.bias"] = (rows * HEAD,)
        shapes[prefix + "self_attn.o_proj.weight"] = (WIDTH, HEADS * HEAD)
        shapes[prefix + "mlp.gate_proj.weight"] = shapes[prefix + "mlp.up_proj.weight"] = (HIDDEN, WIDTH)
        shapes[prefix + "mlp.down_proj.weight"] = (WIDTH, HIDDEN)
        shapes[prefix + "input_layernorm.weight"] = (WIDTH,)
        shapes[prefix + "post_attention_layernorm.weight"] = (WIDTH,)
    shapes["model.norm.weight"] = (WIDTH,)
    if not tied:
        shapes["lm_head.weight"] = (vocab_size, WIDTH)
    return {
        name: (random.standard_normal(shape) * 0.1 + (1 if "norm" in name else 0)).astype(dtype)
        for name, shape in shapes.items()
    }


def write_tokenizer(folder: Path) -> int:
    """A tokenizer with Llama 3's way to cut words; returns how many tokens it has."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        show_progress=False,
        special_tokens=["<|start|>", "<|stop|>", "<|eot_id|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["the cat and the other cat sat on the mat, then 123 ate"] * 3, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", pair="<|start|> $A <|start|> $B", special_tokens=[("<|start|>", 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|start|>", "eos_token": "<|stop|>", "chat_template": TEMPLATE})
    )
    return int(tokenizer.get_vocab_size(with_added_tokens=True))
