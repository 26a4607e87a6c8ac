"""Hugging Face's names of settings and GGUF's: the tables of `hf_config`."""

from __future__ import annotations

__all__ = ["ARCHITECTURES", "MODEL_TYPES", "ROPE_SETTINGS", "SAMPLING", "SETTINGS", "TOKENS"]

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "MixtralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Phi3ForCausalLM": "phi3",
    "Qwen2MoeForCausalLM": "qwen2moe",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "Qwen3NextForCausalLM": "qwen3next",
    "Qwen3_5ForCausalLM": "qwen35",
    "Qwen3_5MoeForCausalLM": "qwen35moe",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3nForCausalLM": "gemma3n",
    "Gemma4ForCausalLM": "gemma4",
    "Gemma4UnifiedForCausalLM": "gemma4",
    "GptOssForCausalLM": "gpt-oss",
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "bert",
    "XLMRobertaForSequenceClassification": "bert",
    "NomicBertForSequenceClassification": "nomic-bert",
    "MinistralForCausalLM": "llama",
    "Ministral3ForCausalLM": "mistral3",
    "GraniteMoeForCausalLM": "granitemoe",
    "GraniteMoeSharedForCausalLM": "granitemoe",
    "PhiForCausalLM": "phi2",
    "PhimoeForCausalLM": "phimoe",
    "PhiMoEForCausalLM": "phimoe",
    "DeepseekV2ForCausalLM": "deepseek2",
    "DeepseekV3ForCausalLM": "deepseek2",
}
"""Class names whose GGUF architecture is not simply their model_type, or that are common."""

MODEL_TYPES = {
    "roberta": "bert",
    "xlm-roberta": "bert",
    "nomic_bert": "nomic-bert",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_5_text": "qwen35",
    "qwen3_5_moe_text": "qwen35moe",
    "gemma3_text": "gemma3",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "gemma4_unified_text": "gemma4",
    "gpt_oss": "gpt-oss",
    "phi": "phi2",
    "granitemoeshared": "granitemoe",
    "ministral": "llama",
    "ministral3": "mistral3",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
}

SETTINGS: dict[str, tuple[str, type]] = {
    "num_hidden_layers": ("block_count", int),
    "max_position_embeddings": ("context_length", int),
    "hidden_size": ("embedding_length", int),
    "intermediate_size": ("feed_forward_length", int),
    "num_attention_heads": ("attention.head_count", int),
    "num_key_value_heads": ("attention.head_count_kv", int),
    "head_dim": ("attention.key_length", int),
    "rms_norm_eps": ("attention.layer_norm_rms_epsilon", float),
    "layer_norm_eps": ("attention.layer_norm_epsilon", float),
    "is_causal": ("attention.causal", bool),
    "rope_theta": ("rope.freq_base", float),
    "original_max_position_embeddings": ("rope.scaling.original_context_length", int),
    "sliding_window": ("attention.sliding_window", int),
    "vocab_size": ("vocab_size", int),
    "hidden_act": ("hidden_act", str),
    "tie_word_embeddings": ("tie_word_embeddings", bool),
    "num_local_experts": ("expert_count", int),
    "num_experts": ("expert_count", int),
    "n_routed_experts": ("expert_count", int),
    "num_experts_per_tok": ("expert_used_count", int),
    "top_k_experts": ("expert_used_count", int),
    "moe_intermediate_size": ("expert_feed_forward_length", int),
    "shared_expert_intermediate_size": ("expert_shared_feed_forward_length", int),
    "shared_intermediate_size": ("expert_shared_feed_forward_length", int),
    "n_shared_experts": ("expert_shared_count", int),
    "norm_topk_prob": ("expert_weights_norm", bool),
    "routed_scaling_factor": ("expert_weights_scale", float),
    "n_group": ("expert_group_count", int),
    "topk_group": ("expert_group_used_count", int),
    "first_k_dense_replace": ("leading_dense_block_count", int),
    "q_lora_rank": ("attention.q_lora_rank", int),
    "kv_lora_rank": ("attention.kv_lora_rank", int),
    "qk_rope_head_dim": ("rope.dimension_count", int),
    "v_head_dim": ("attention.value_length_mla", int),
    "full_attention_interval": ("full_attention_interval", int),
    "linear_conv_kernel_dim": ("ssm.conv_kernel", int),
    "linear_key_head_dim": ("ssm.state_size", int),
    "linear_num_key_heads": ("ssm.group_count", int),
    "linear_num_value_heads": ("ssm.time_step_rank", int),
    "embedding_multiplier": ("embedding_scale", float),
    "residual_multiplier": ("residual_scale", float),
    "rope_local_base_freq": ("rope.freq_base_swa", float),
    "attn_logit_softcapping": ("attn_logit_softcapping", float),
    "final_logit_softcapping": ("final_logit_softcapping", float),
    "attention_multiplier": ("attention.scale", float),
    "logits_scaling": ("logit_scale", float),
    "llama_4_scaling_beta": ("attention.temperature_scale", float),
    "yarn_log_multiplier": ("rope.scaling.yarn_log_multiplier", float),
}
"""config.json's keys, the GGUF keys after ``<architecture>.``, and the type that is expected."""

ROPE_SETTINGS: dict[str, tuple[str, type]] = {
    "rope_theta": ("freq_base", float),
    "factor": ("scaling.factor", float),
    "original_max_position_embeddings": ("scaling.original_context_length", int),
    "low_freq_factor": ("scaling.low_freq_factor", float),
    "high_freq_factor": ("scaling.high_freq_factor", float),
    "beta_fast": ("scaling.yarn_beta_fast", float),
    "beta_slow": ("scaling.yarn_beta_slow", float),
    "attention_factor": ("scaling.attention_factor", float),
    "truncate": ("scaling.yarn_truncate", bool),
    "short_factor": ("scaling.short_factor", list),
    "long_factor": ("scaling.long_factor", list),
}
"""Keys inside rope_scaling or rope_parameters, after ``<architecture>.rope.``. GGUF has no key for
attention_factor (the magnitude itself; its yarn_attn_factor multiplies the default magnitude), nor for truncate.
The factors of LongRoPE are tensors there."""

SAMPLING: dict[str, tuple[str, type]] = {
    "temperature": ("temp", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "repetition_penalty": ("penalty_repeat", float),
}
"""generation_config.json's keys and what follows ``general.sampling.``."""

TOKENS = {"bos_token_id": "bos_token_id", "pad_token_id": "padding_token_id"}
