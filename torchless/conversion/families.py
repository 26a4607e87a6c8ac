"""What differs between the two file formats of a model family, as data: a further family is one entry.

Names of tensors are translated in `weights.names`, settings in `weights.hf_config`; both are the same for all
families that share a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torchless.errors import UnsupportedError

__all__ = ["Family", "find_conversion"]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture by its GGUF name.

    Attributes:
        hf_class: class in ``architectures`` of a config.json that is made anew.
        model_type: its ``model_type``.
        window_class, window_type: the same for models with a sliding window, where they have names of their own.
        rotary_rows: parts whose rows GGUF stores with the two halves of every rotary pair side by side
            ("interleaved") while safetensors files keep all first halves before all second ones, and the setting
            that says how many heads they have.
        activation: of its MLP.
        names: Hugging Face names of a layer's parts where several families name the same part differently; ``{}`` is
            the number of an expert.
        gguf_names: parts that GGUF files call otherwise than torchless calls them in folders.
        gguf_settings: settings that GGUF files have besides, each with the one that it repeats.
        is_one_way: whether the family is written as GGUF only.
        centred_norms: whether folders hold norms less one.
        expert_weights_norm: whether GGUF's readers divide the weights of a token's experts by their sum, where files
            do not say it; None where they do.
        experts: how folders hold experts: one by one, or in stacks in which up's rows follow gate's.
        has_ranks: whether GGUF files keep the ranks of a tokenizer's merges where others have scores ("gemma4").
        expert_count: config.json's name of the number of experts, which has several.
        shared_width: config.json's name of the width of the expert that all tokens share, likewise.
    """

    hf_class: str
    model_type: str
    window_class: str | None = None
    window_type: str | None = None
    rotary_rows: tuple[tuple[str, str], ...] = ()
    activation: str = "silu"
    names: Mapping[str, str] = field(default_factory=dict)
    gguf_names: Mapping[str, str] = field(default_factory=dict)
    gguf_settings: Mapping[str, str] = field(default_factory=dict)
    is_one_way: bool = False
    experts: Literal["apart", "joined"] = "apart"
    expert_count: str = "num_experts"
    shared_width: str = "shared_expert_intermediate_size"
    centred_norms: bool = False
    expert_weights_norm: bool | None = None
    has_ranks: bool = False


_INTERLEAVED = (("attn_q", "attention.head_count"), ("attn_k", "attention.head_count_kv"))
_POST_NORM = {"ffn_norm": "post_attention_norm"}

_AROUND = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

_BEHIND = {part: _AROUND[part] for part in ("post_attention_norm", "post_ffw_norm")}

_BLOCK_SPARSE = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
    "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
}

_FAMILIES = {
    "bert": Family("BertModel", "bert", is_one_way=True),
    "nomic-bert": Family("NomicBertModel", "nomic_bert", is_one_way=True),
    "gemma": Family("GemmaForCausalLM", "gemma", centred_norms=True),
    "gemma2": Family("Gemma2ForCausalLM", "gemma2", names=_AROUND, centred_norms=True),
    "gemma3": Family("Gemma3ForCausalLM", "gemma3_text", names=_AROUND, centred_norms=True),
    "gemma3n": Family("Gemma3nForCausalLM", "gemma3n_text", is_one_way=True),
    "gemma4": Family("Gemma4ForCausalLM", "gemma4_text", is_one_way=True, has_ranks=True),
    "llama": Family("LlamaForCausalLM", "llama", "MistralForCausalLM", "mistral", _INTERLEAVED),
    "mistral3": Family("Ministral3ForCausalLM", "ministral3", rotary_rows=_INTERLEAVED),
    "granite": Family("GraniteForCausalLM", "granite", rotary_rows=_INTERLEAVED),
    "granitemoe": Family(
        "GraniteMoeSharedForCausalLM",
        "granitemoeshared",
        rotary_rows=_INTERLEAVED,
        names={
            "ffn_gate_inp": "block_sparse_moe.router.layer",
            "ffn_gate_up_exps": "block_sparse_moe.input_linear",
            "ffn_down_exps": "block_sparse_moe.output_linear",
            "ffn_gate_up_shexp": "shared_mlp.input_linear",
            "ffn_down_shexp": "shared_mlp.output_linear",
        },
        experts="joined",
        expert_count="num_local_experts",
        shared_width="shared_intermediate_size",
    ),
    "smollm3": Family("SmolLM3ForCausalLM", "smollm3", rotary_rows=_INTERLEAVED),
    "olmo2": Family("Olmo2ForCausalLM", "olmo2", gguf_names=_POST_NORM, names=_BEHIND),
    "olmoe": Family("OlmoeForCausalLM", "olmoe", expert_weights_norm=False),
    "gpt-oss": Family(
        "GptOssForCausalLM",
        "gpt_oss",
        gguf_names=_POST_NORM,
        gguf_settings={"expert_feed_forward_length": "feed_forward_length"},
        is_one_way=True,
    ),
    "deepseek2": Family("DeepseekV3ForCausalLM", "deepseek_v3", is_one_way=True),
    "qwen3next": Family("Qwen3NextForCausalLM", "qwen3_next", gguf_names=_POST_NORM, is_one_way=True),
    "qwen35": Family("Qwen3_5ForCausalLM", "qwen3_5_text", gguf_names=_POST_NORM, is_one_way=True),
    "qwen35moe": Family("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", gguf_names=_POST_NORM, is_one_way=True),
    "phi2": Family(
        "PhiForCausalLM",
        "phi",
        names={
            "attn_output": "self_attn.dense",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
            "output_norm": "model.final_layernorm",
        },
        activation="gelu_new",
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        "phi3",
        names={"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    ),
    "phimoe": Family("PhimoeForCausalLM", "phimoe", names=_BLOCK_SPARSE, expert_count="num_local_experts"),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2"),
    "qwen3": Family("Qwen3ForCausalLM", "qwen3"),
    "qwen3moe": Family(
        "Qwen3MoeForCausalLM", "qwen3_moe", expert_count="num_local_experts", expert_weights_norm=True
    ),
    "qwen2moe": Family("Qwen2MoeForCausalLM", "qwen2_moe", expert_weights_norm=False),
}

_MIXTURES = {
    "llama": Family(
        "MixtralForCausalLM",
        "mixtral",
        rotary_rows=_INTERLEAVED,
        names=_BLOCK_SPARSE,
        expert_count="num_local_experts",
    ),
}
"""Families that share their GGUF name with models without experts."""


def find_conversion(architecture: str, *, has_experts: bool = False) -> Family:
    """The entry of an architecture. Raises UnsupportedError naming it and those that are known.

    >>> find_conversion("llama").hf_class, find_conversion("llama", has_experts=True).hf_class
    ('LlamaForCausalLM', 'MixtralForCausalLM')
    """
    family = (_MIXTURES if has_experts else {}).get(architecture) or _FAMILIES.get(architecture)
    if family is None:
        raise UnsupportedError(
            f"models of the architecture {architecture!r} cannot be converted between GGUF and safetensors; "
            f"torchless converts: {', '.join(sorted(_FAMILIES))}"
        )
    return family
