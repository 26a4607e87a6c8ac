"""Hugging Face tensor names and their GGUF names: the one place where the two meet.

Families that share a name need no line here; a new name is one line in a table. `canonical_name` gives the
name that model files use for both formats.
"""

from __future__ import annotations

import re

__all__ = ["canonical_name", "hugging_face_name"]

_TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""What follows ``model.layers.N.`` and what follows ``blk.N.``; both with ``.weight`` or ``.bias`` behind."""

_NOT_WEIGHTS = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
"""Buffers that old files carry and that follow from the configuration."""

_LAYER_NAME = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_TOP_NAME = re.compile(r"(.+)\.(weight|bias)")


def canonical_name(name: str) -> str | None:
    """GGUF's name of a Hugging Face tensor; None for a buffer that holds no weights.

    A name that no table knows comes back with ``hf.`` before it: no model reads such a tensor, and a load
    stops at tensors that nobody reads.

    >>> canonical_name("model.layers.3.self_attn.q_proj.weight"), canonical_name("lm_head.weight")
    ('blk.3.attn_q.weight', 'output.weight')
    >>> canonical_name("model.layers.0.strange.weight")
    'hf.model.layers.0.strange.weight'
    """
    if name.endswith(_NOT_WEIGHTS):
        return None
    layer = _LAYER_NAME.fullmatch(name)
    if layer is not None and layer[2] in _LAYER:
        return f"blk.{int(layer[1])}.{_LAYER[layer[2]]}.{layer[3]}"
    top = _TOP_NAME.fullmatch(name)
    if top is not None and top[1] in _TOP:
        return f"{_TOP[top[1]]}.{top[2]}"
    return f"hf.{name}"


_HUGGING_FACE_TOP = {ours: theirs for theirs, ours in _TOP.items()}
_HUGGING_FACE_LAYER = {ours: theirs for theirs, ours in _LAYER.items()}
_OUR_LAYER_NAME = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)")


def hugging_face_name(name: str) -> str | None:
    """The Hugging Face name of a tensor under its canonical name; None where there is none.

    >>> hugging_face_name("blk.3.attn_q.weight"), hugging_face_name("rope_freqs.weight")
    ('model.layers.3.self_attn.q_proj.weight', None)
    """
    layer = _OUR_LAYER_NAME.fullmatch(name)
    if layer is not None and layer[2] in _HUGGING_FACE_LAYER:
        return f"model.layers.{int(layer[1])}.{_HUGGING_FACE_LAYER[layer[2]]}.{layer[3]}"
    top = _TOP_NAME.fullmatch(name)
    if top is not None and top[1] in _HUGGING_FACE_TOP:
        return f"{_HUGGING_FACE_TOP[top[1]]}.{top[2]}"
    return name[3:] if name.startswith("hf.") else None
