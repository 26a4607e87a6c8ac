"""Folders of encoders in the words of GGUF files: settings that have other names there, tensors that are left out.

BERT, RoBERTa and XLM-RoBERTa are one architecture in GGUF files (``bert``): what differs is the tokenizer, and that
RoBERTa's positions begin behind that of the padding token, rows which GGUF files do not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torchless.errors import FormatError
from torchless.quants import Bytes
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import DecodedWeight, FileTensor, StoredWeight

__all__ = ["drop_positions", "encoder_settings", "encoder_tensors"]

_TYPES = ("bert", "roberta", "xlm-roberta", "nomic_bert")
_ROBERTA = ("roberta", "xlm-roberta")
_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
"""What published folders may leave to the library."""

_NOMIC = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
"""Names in the folders that nomic-bert was published in."""

_NOMIC_FIXED: Mapping[str, tuple[Any, ...]] = {
    "activation_function": ("swiglu",),
    "prenorm": (False,),
    "qkv_proj_bias": (False,),
    "mlp_fc1_bias": (False,),
    "mlp_fc2_bias": (False,),
    "rotary_emb_fraction": (1, 1.0),
    "rotary_emb_interleaved": (False,),
    "rotary_emb_scale_base": (None,),
    "rotary_scaling_factor": (None,),
    "use_rms_norm": (False, None),
    "causal": (False,),
    "parallel_block": (False,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
    "reorder_and_upcast_attn": (False,),
}
"""Settings there that could change the arithmetic, with the values that do not."""

_NOT_ARITHMETIC = (
    *("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "summary_activation"),
    *("summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "attn_pdrop"),
    *("use_flash_attn", "use_xentropy", "fused_bias_fc", "fused_dropout_add_ln", "pad_vocab_size_multiple"),
    *("max_trained_positions", "dense_seq_output", "last_layer_subset", "add_cross_attention", "n_ctx"),
    *(
        "output_past",
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
    ),
    *("pooler_size_per_head", "pooler_type", "mask_token_id", "cls_token_id", "finetuning_task"),
)


def encoder_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of an encoder under the names that other models have; others' as they are.

    >>> encoder_settings({"model_type": "xlm-roberta", "max_position_embeddings": 514})["max_position_embeddings"]
    512
    """
    if config.get("model_type") not in _TYPES:
        return config
    found = {
        "is_causal": False,
        **_DEFAULTS,
        **{key: value for key, value in config.items() if key not in _NOT_ARITHMETIC},
    }
    if config["model_type"] == "nomic_bert":
        found |= {ours: found.pop(theirs) for theirs, ours in _NOMIC.items() if theirs in found}
        found = {key: value for key, value in found.items() if value not in _NOMIC_FIXED.get(key, ())}
        if "hidden_act" not in config:
            found["hidden_act"] = "silu"
        found.setdefault("rope_theta", 1000.0)
    if config["model_type"] in _ROBERTA and isinstance(found["max_position_embeddings"], int):
        found["max_position_embeddings"] -= _first_position(config)
    found.pop("tie_word_embeddings", None)  # of the head that guesses words, which is not read
    return found


def _first_position(config: Mapping[str, Any]) -> int:
    """The row of a RoBERTa model's position table that the first token gets."""
    padding = config.get("pad_token_id", 1)
    if not isinstance(padding, int) or not 0 <= padding < 1 << 20:
        raise FormatError(f"pad_token_id: found {padding!r:.60}, expected a token id")
    return padding + 1


def encoder_tensors(tensors: Mapping[str, FileTensor], metadata: Mapping[str, Any]) -> dict[str, FileTensor]:
    """The tensors of an encoder without the prefix that models with a head have, and without what they do not use.

    A model that makes embeddings has no use for BERT's pooler, through which a classifier sees the first token. A
    decoder that was saved without its head gets the prefix that others have.
    """
    if metadata["general.architecture"] not in ("bert", "nomic-bert"):
        if "embed_tokens.weight" in tensors:
            return {
                f"model.{name}": tensor._replace(name=f"model.{name}") for name, tensor in tensors.items()
            }
        return dict(tensors)
    unused: tuple[str, ...] = ("embeddings.position_ids", "embeddings.token_type_ids")
    if not str(metadata.get("hf.architecture", "")).endswith("ForSequenceClassification"):
        unused = (*unused, "pooler.")
    found = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("bert.").removeprefix("roberta.").removeprefix("nomic_bert.")
        if not short.startswith(unused):
            found[short] = tensor._replace(name=short)
    return found


def drop_positions(weights: Iterable[StoredWeight], metadata: Mapping[str, Any]) -> Iterator[StoredWeight]:
    """The weights; of RoBERTa's position table the rows that tokens get."""
    is_roberta = metadata.get("hf.model_type") in _ROBERTA
    for weight in weights:
        if is_roberta and weight.info.name == "position_embd.weight":
            padding = metadata.get("tokenizer.ggml.padding_token_id", 1)
            weight = _rows_from(weight, padding + 1)
        yield weight


def _rows_from(weight: StoredWeight, first: int) -> DecodedWeight:
    info = weight.info
    if len(info.shape) != 2 or info.shape[0] <= first:
        raise FormatError(
            f"{weight.origin.file.path}: tensor {weight.origin.name!r} has the shape {list(info.shape)}, expected more "
            f"than {first} rows of positions"
        )
    row_bytes = info.num_bytes // info.shape[0]

    def rows(begin: int, end: int) -> Bytes:
        return weight.raw().reshape(-1, row_bytes)[first + begin : first + end]

    shape = (info.shape[0] - first, info.shape[1])
    return DecodedWeight(TensorInfo(info.name, shape, info.type, shape[0] * row_bytes), weight.origin, rows)
