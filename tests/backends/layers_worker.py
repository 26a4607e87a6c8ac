"""A small random Gemma 4 with everything that its layers may have, and checks of one level (TORCHLESS_ISA) of it.

Usage: layers_worker.py MODEL. In a process of its own: the promise, and nearness to the reference backend.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from torchless.weights.gguf_values import ValueType
from torchless.weights.gguf_writer import TypedValue, write_gguf

VOCAB, WIDTH, INNER, LENGTH, NUM_HEADS = 90, 64, 96, 32, 4
EXPERTS, USED, EXPERT_INNER = 6, 2, 32
KINDS = "LLGLGLG"  # with a window (local) or without (global); the last two have no cache of their own
NUM_SHARED = 2
# (key/value heads, elements of a head): one global head of an odd width; its values are its keys.
HEADS = {"L": (2, 24), "G": (1, 40)}


def write_layers(path: Path) -> None:
    """The model in F32."""
    random = np.random.default_rng(11)
    arch, num_layers = "gemma4", len(KINDS)
    metadata: dict[str, Any] = {
        "general.architecture": arch,
        f"{arch}.block_count": num_layers,
        f"{arch}.context_length": 4096,
        f"{arch}.embedding_length": WIDTH,
        f"{arch}.feed_forward_length": INNER,
        f"{arch}.attention.head_count": NUM_HEADS,
        f"{arch}.attention.head_count_kv": [HEADS[kind][0] for kind in KINDS],
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{arch}.attention.sliding_window": 20,
        f"{arch}.attention.sliding_window_pattern": TypedValue(
            ValueType.BOOL, [kind == "L" for kind in KINDS]
        ),
        f"{arch}.attention.shared_kv_layers": NUM_SHARED,
        f"{arch}.embedding_length_per_layer_input": LENGTH,
        f"{arch}.final_logit_softcapping": 30.0,
        f"{arch}.expert_count": EXPERTS,
        f"{arch}.expert_used_count": USED,
        f"{arch}.expert_feed_forward_length": EXPERT_INNER,
        f"{arch}.rope.freq_base": 1e6,
        f"{arch}.rope.freq_base_swa": 1e4,
    }
    for kind, suffix in (("L", "_swa"), ("G", "")):
        for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            metadata[f"{arch}.{key}{suffix}"] = HEADS[kind][1]

    def values(name: str, shape: tuple[int, ...]) -> Any:
        if name == "rope_freqs.weight":
            return np.where(np.arange(shape[0]) < 5, 1.0, 1e30)
        if len(shape) == 1:
            factor = WIDTH**-0.25 if name.endswith(("q_norm.weight", "k_norm.weight")) else 1.0
            return factor * (1 + 0.2 * random.standard_normal(shape))
        return random.standard_normal(shape) * shape[-1] ** -0.5

    tensors = []
    for name, shape in _shapes().items():
        data = values(name, shape).astype("<f4")
        tensors.append((name, shape, "F32", data.reshape(-1).view(np.uint8)))
    write_gguf(path, metadata, tensors)


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCAB, WIDTH),
        "output_norm.weight": (WIDTH,),
        "rope_freqs.weight": (HEADS["G"][1] // 2,),
        "per_layer_token_embd.weight": (VOCAB, len(KINDS) * LENGTH),
        "per_layer_model_proj.weight": (len(KINDS) * LENGTH, WIDTH),
        "per_layer_proj_norm.weight": (LENGTH,),
    }
    for layer, kind in enumerate(KINDS):
        num_kv_heads, head_dim = HEADS[kind]
        parts: dict[str, tuple[int, ...]] = {
            "attn_q": (NUM_HEADS * head_dim, WIDTH),
            "attn_q_norm": (head_dim,),
            "attn_output": (WIDTH, NUM_HEADS * head_dim),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
            "inp_gate": (LENGTH, WIDTH),
            "proj": (WIDTH, LENGTH),
            "layer_output_scale": (1,),
            "ffn_gate_inp": (EXPERTS, WIDTH),
            "ffn_gate_up_exps": (EXPERTS, 2 * EXPERT_INNER, WIDTH),
            "ffn_down_exps": (EXPERTS, WIDTH, EXPERT_INNER),
        }
        if layer < len(KINDS) - NUM_SHARED:
            parts |= {"attn_k": (num_kv_heads * head_dim, WIDTH), "attn_k_norm": (head_dim,)}
            if kind == "L":
                parts["attn_v"] = (num_kv_heads * head_dim, WIDTH)
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"):
            parts[norm] = (WIDTH,)
        for norm in ("post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"):
            parts[norm] = (WIDTH,)
        shapes |= {f"blk.{layer}.{part}.weight": shape for part, shape in parts.items()}
        shapes |= {
            f"blk.{layer}.ffn_gate_inp.scale": (WIDTH,),
            f"blk.{layer}.ffn_down_exps.scale": (EXPERTS,),
        }
    return shapes


def check_near_reference(path: Path) -> None:
    """Logits of float weights and a float cache, whole and in pieces."""
    from executors import logits_of, open_executor

    ids = np.random.default_rng(2).integers(0, VOCAB, 90).tolist()
    exact = logits_of(open_executor(path, "reference"), ids, 90)
    assert np.abs(exact).max() > 1
    np.testing.assert_allclose(logits_of(open_executor(path, "reference"), ids, 11), exact, rtol=0, atol=1e-6)
    found = logits_of(open_executor(path, "cpu", kv="f32", threads=2), ids, 90)
    error = np.square(found - exact).mean() / np.square(exact).mean()
    assert error < 1e-10, error


if __name__ == "__main__":
    from promise_worker import main

    check_near_reference(Path(sys.argv[1]))
    main(Path(sys.argv[1]), "f16", 150)
