"""Hugging Face tensor names and their GGUF names: the one place where the two meet.

Families that share a name need no line here; a new name is one line in a table. `canonical_name` gives the
name that model files use for both formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["canonical_name", "hugging_face_name"]

_TOP = {
    "model.embed_tokens": "token_embd",
    "model.final_layernorm": "output_norm",
    "model.norm": "output_norm",
    "model.embed_tokens_per_layer": "per_layer_token_embd",
    "model.per_layer_model_projection": "per_layer_model_proj",
    "model.per_layer_projection_norm": "per_layer_proj_norm",
    "lm_head": "output",
}

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.dense": "attn_output",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "pre_feedforward_layernorm": "pre_ffw_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "post_feedforward_layernorm_1": "post_ffw_norm_1",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "altup.correction_coefs": "altup_correct_coef",
    "altup.prediction_coefs": "altup_predict_coef",
    "altup.modality_router": "altup_router",
    "altup.router_norm": "altup_router_norm",
    "laurel.linear_left": "laurel_l",
    "laurel.linear_right": "laurel_r",
    "laurel.post_laurel_norm": "laurel_post_norm",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
    "router.proj": "ffn_gate_inp",
    "mlp.gate_up_proj": "ffn_up",  # gate's rows, then up's, as GGUF's ffn_up of these families
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "block_sparse_moe.router.layer": "ffn_gate_inp",
    "block_sparse_moe.output_linear": "ffn_down_exps",
    "shared_mlp.output_linear": "ffn_down_shexp",
    "mlp.router": "ffn_gate_inp",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "linear_attn.in_proj_qkvz": "ssm_in",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
}
"""What follows ``model.layers.N.`` and what follows ``blk.N.``; both with ``.weight`` or ``.bias`` behind."""

_ENCODER_TOP = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "emb_ln": "token_embd_norm",
    "pooler.dense": "cls",
    "classifier": "cls.output",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
}

_ENCODER_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "attn.Wqkv": "attn_qkv",
    "attn.out_proj": "attn_output",
    "norm1": "attn_output_norm",
    "mlp.fc11": "ffn_up",
    "mlp.fc12": "ffn_gate",
    "mlp.fc2": "ffn_down",
    "norm2": "layer_output_norm",
}
"""What follows ``encoder.layer.N.`` (BERT, and RoBERTa likewise) or ``encoder.layers.N.`` (nomic-bert)."""

_EXPERT = {
    "w1": "ffn_gate_exps",
    "w2": "ffn_down_exps",
    "w3": "ffn_up_exps",
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
}
"""What follows ``mlp.experts.E.`` or ``block_sparse_moe.experts.E.``; see `expert_stacks`."""

_WHOLE = {
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "self_attn.sinks": "attn_sinks.weight",
    "layer_scalar": "layer_output_scale.weight",
    "altup.correct_output_scale": "altup_correct_scale.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.dt_bias": "ssm_dt.bias",
}
"""Names of a layer's tensors that end otherwise."""

_NOT_WEIGHTS = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
"""Buffers that old files carry and that follow from the configuration."""

_DRAFTS = ("mtp.",)
"""Layers that guess the tokens after the next one, which say nothing about the next."""

_LAYER_NAME = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_ENCODER_NAME = re.compile(r"encoder\.layers?\.(\d+)\.(.+)\.(weight|bias)")
_EXPERT_NAME = re.compile(
    r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(.+)\.(weight|bias)"
)
_WHOLE_NAME = re.compile(r"model\.layers\.(\d+)\.(.+)")
_STREAM_NAME = re.compile(r"model\.altup_(un(?=embed))?(?:embed_)?projections\.(\d+)\.weight")
_TOP_NAME = re.compile(r"(.+)\.(weight|bias)")


def canonical_name(name: str) -> str | None:
    """GGUF's name of a Hugging Face tensor; None for a buffer that holds no weights, and
    for layers that only draft tokens.

    A name that no table knows comes back with ``hf.`` before it: no model reads such a tensor, and a load
    stops at tensors that nobody reads.

    >>> canonical_name("model.layers.3.self_attn.q_proj.weight"), canonical_name("lm_head.weight")
    ('blk.3.attn_q.weight', 'output.weight')
    >>> canonical_name("model.layers.0.strange.weight")
    'hf.model.layers.0.strange.weight'

    A tensor of one expert keeps the expert's number:

    >>> canonical_name("model.layers.0.mlp.experts.7.up_proj.weight")
    'blk.0.ffn_up_exps.7.weight'
    """
    if name.endswith(_NOT_WEIGHTS) or name.startswith(_DRAFTS):
        return None
    layer = _LAYER_NAME.fullmatch(name)
    if layer is not None and layer[2] in _LAYER:
        return f"blk.{int(layer[1])}.{_LAYER[layer[2]]}.{layer[3]}"
    encoder = _ENCODER_NAME.fullmatch(name)
    if encoder is not None and encoder[2] in _ENCODER_LAYER:
        return f"blk.{int(encoder[1])}.{_ENCODER_LAYER[encoder[2]]}.{encoder[3]}"
    expert = _EXPERT_NAME.fullmatch(name)
    if expert is not None and expert[3] in _EXPERT:
        return f"blk.{int(expert[1])}.{_EXPERT[expert[3]]}.{int(expert[2])}.{expert[4]}"
    whole = _WHOLE_NAME.fullmatch(name)
    if whole is not None and whole[2] in _WHOLE:
        return f"blk.{int(whole[1])}.{_WHOLE[whole[2]]}"
    stream = _STREAM_NAME.fullmatch(name)
    if stream is not None:
        return f"altup_{'unembd_' if stream[1] else ''}proj.{int(stream[2])}.weight"
    top = _TOP_NAME.fullmatch(name)
    if top is not None:
        part = _TOP.get(top[1]) or _ENCODER_TOP.get(top[1])
        if part is not None:
            return f"{part}.{top[2]}"
    return f"hf.{name}"


_HUGGING_FACE_TOP = {ours: theirs for theirs, ours in _TOP.items()}
_HUGGING_FACE_LAYER = {
    **{ours: theirs for theirs, ours in _LAYER.items()},
    **{ours: f"mlp.experts.{{}}.{theirs}" for theirs, ours in _EXPERT.items()},
}
_HUGGING_FACE_WHOLE = {ours: theirs for theirs, ours in _WHOLE.items()}
_OUR_LAYER_NAME = re.compile(r"blk\.(\d+)\.([a-z_]+)(?:\.(\d+))?\.(weight|bias)")


def hugging_face_name(name: str, names: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """The Hugging Face name of a tensor under its canonical name; None where there is none.

    `names` has the family's own names of parts, such as ``{"ffn_gate_inp": "block_sparse_moe.gate"}``.

    >>> hugging_face_name("blk.3.attn_q.weight"), hugging_face_name("rope_freqs.weight")
    ('model.layers.3.self_attn.q_proj.weight', None)
    >>> hugging_face_name("blk.0.ffn_up_exps.7.weight")
    'model.layers.0.mlp.experts.7.up_proj.weight'
    """
    layer = _OUR_LAYER_NAME.fullmatch(name)
    if layer is not None:
        prefix = f"model.layers.{int(layer[1])}."
        part = names.get(layer[2]) or _HUGGING_FACE_LAYER.get(layer[2])
        if part is not None and ("{}" in part) == (layer[3] is not None):
            return f"{prefix}{part.format(layer[3])}.{layer[4]}"
        whole = _HUGGING_FACE_WHOLE.get(f"{layer[2]}.{layer[4]}")
        if whole is not None and layer[3] is None:
            return prefix + whole
    top = _TOP_NAME.fullmatch(name)
    if top is not None and top[1] in _HUGGING_FACE_TOP:
        return f"{names.get(top[1]) or _HUGGING_FACE_TOP[top[1]]}.{top[2]}"
    return name[3:] if name.startswith("hf.") else None
