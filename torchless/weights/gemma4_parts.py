"""Gemma 4's folders in the words of GGUF files: settings of layers that differ, and names.

GGUF has the sizes of layers with a window beside those of layers without (``_swa``), and a list where layers have other
sizes; folders have defaults, names for the layers without, or, since transformers 5.24, ``per_layer_config``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torchless.errors import FormatError
from torchless.weights.expert_stacks import renamed
from torchless.weights.stored_weights import StoredWeight

__all__ = ["gemma4_names", "gemma4_settings"]

_TYPES = ("gemma4_text", "gemma4_unified_text")
_LOCAL, _WHOLE = "sliding_attention", "full_attention"
_NAMES = {"ffn_norm": "post_attention_norm", "pre_ffw_norm": "ffn_norm"}
"""What the tables of names make of the norms behind attention and before the MLP."""

_ROPE = {
    _LOCAL: {"rope_type": "default", "rope_theta": 1e4},
    _WHOLE: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
}
_DEFAULTS: dict[str, Any] = {
    "head_dim": 256,
    "num_key_value_heads": 4,
    "intermediate_size": 9216,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "use_double_wide_mlp": False,
    "enable_moe_block": False,
    "rope_parameters": _ROPE,
}


def gemma4_settings(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings without those of layers, GGUF's settings of layers without the architecture's name before them).

    Raises:
        FormatError: a setting of the wrong kind.
    """
    if config.get("model_type") not in _TYPES:
        return config, {}
    is_text = config["model_type"] == "gemma4_text"
    defaults = _DEFAULTS | ({"hidden_size_per_layer_input": 256} if is_text else {})
    found = {**defaults, **{key: value for key, value in config.items() if value is not None}}
    found.setdefault("tie_word_embeddings", True)
    num_layers = _whole_number(found, "num_hidden_layers", 30)
    kinds = found.pop("layer_types", None)
    if kinds is None:
        kinds = [_WHOLE if (i + 1) % 6 == 0 or i + 1 == num_layers else _LOCAL for i in range(num_layers)]
    if not isinstance(kinds, list) or len(kinds) != num_layers or not set(kinds) <= {_LOCAL, _WHOLE}:
        raise _wrong("layer_types", kinds, f"{_LOCAL} or {_WHOLE} for each of {num_layers} layers")
    heads = _heads(found, kinds)
    num_shared = _whole_number(found, "num_kv_shared_layers")
    length = _whole_number(found, "hidden_size_per_layer_input")
    inner = _whole_number(found, "intermediate_size")
    for key in ("num_kv_shared_layers", "hidden_size_per_layer_input"):
        del found[key]
    widths = [inner * 2] * num_layers if found.pop("use_double_wide_mlp") is True else [inner] * num_layers
    widths[: num_layers - num_shared] = [inner] * (num_layers - num_shared)
    layers: dict[str, Any] = {
        "attention.sliding_window_pattern": [kind == _LOCAL for kind in kinds],
        "attention.shared_kv_layers": num_shared,
        "embedding_length_per_layer_input": length,
        "feed_forward_length": _one_or_all(widths),
        "attention.head_count_kv": _one_or_all([count for count, _ in heads]),
    }
    for suffix, kind in (("_swa", _LOCAL), ("", _WHOLE)):
        sizes = {size for (_, size), other in zip(heads, kinds, strict=True) if other == kind}
        if len(sizes) > 1:
            raise _wrong("per_layer_config", sorted(sizes), f"one head_dim in all layers with {kind}")
        size = max(sizes, default=heads[0][1])
        for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            layers[f"{key}{suffix}"] = size
    layers |= _rope(found)
    if found.pop("enable_moe_block") is not True:
        for key in ("num_experts", "top_k_experts", "moe_intermediate_size"):
            found.pop(key, None)
    return found, layers


def gemma4_names(weights: Iterable[StoredWeight], metadata: Mapping[str, Any]) -> Iterator[StoredWeight]:
    """The weights, Gemma 4's norms under GGUF's names; without keys and values of layers that share another one's."""
    if metadata["general.architecture"] != "gemma4":
        yield from weights
        return
    first_shared = metadata.get("gemma4.block_count", 0) - metadata.get(
        "gemma4.attention.shared_kv_layers", 0
    )
    for weight in weights:
        pieces = weight.info.name.split(".")
        if pieces[0] == "blk":
            if int(pieces[1]) >= first_shared and pieces[2] in ("attn_k", "attn_v", "attn_k_norm"):
                continue  # nobody multiplies with them
            pieces[2] = _NAMES.get(pieces[2], pieces[2])
        yield renamed(weight, ".".join(pieces))


def _heads(found: dict[str, Any], kinds: list[str]) -> list[tuple[int, int]]:
    """(key/value heads, elements of a head) of each layer."""
    size, count = _whole_number(found, "head_dim"), _whole_number(found, "num_key_value_heads")
    del found["head_dim"], found["num_key_value_heads"]
    global_size, global_count = (
        found.pop("global_head_dim", None),
        found.pop("num_global_key_value_heads", None),
    )
    own = found.pop("per_layer_config", None)
    if own is None:
        whole = {"head_dim": global_size or 512}
        if global_count is not None and found.get("attention_k_eq_v", False):
            whole["num_key_value_heads"] = global_count
        own = {str(i): whole for i, kind in enumerate(kinds) if kind == _WHOLE}
    heads = []
    for layer in range(len(kinds)):
        of_layer = own.get(str(layer), {}) if isinstance(own, dict) else None
        if not isinstance(of_layer, dict) or not set(of_layer) <= {"head_dim", "num_key_value_heads"}:
            raise _wrong(
                "per_layer_config", own, "head_dim and num_key_value_heads of layers by their numbers"
            )
        layer_sizes = {"head_dim": size, "num_key_value_heads": count, **of_layer}
        heads.append(
            (_whole_number(layer_sizes, "num_key_value_heads"), _whole_number(layer_sizes, "head_dim"))
        )
    return heads


def _rope(found: dict[str, Any]) -> dict[str, Any]:
    """Bases of both kinds of layers; what is not known stays in `found`, to be refused by name."""
    parameters = found.pop("rope_parameters")
    layers: dict[str, Any] = {}
    for kind, suffix in ((_LOCAL, "_swa"), (_WHOLE, "")):
        of_kind = parameters.get(kind) if isinstance(parameters, dict) else None
        if not isinstance(of_kind, dict):
            raise _wrong("rope_parameters", parameters, f"an object for {_LOCAL} and one for {_WHOLE}")
        rest = {"rope_type": "default", "rope_theta": _ROPE[kind]["rope_theta"], **of_kind}
        layers[f"rope.freq_base{suffix}"] = _number(rest, "rope_theta")
        if kind == _WHOLE and rest["rope_type"] == "proportional":
            found["global_rotary_factor"] = rest.pop("partial_rotary_factor", 1.0)
            rest["rope_type"] = "default"
        harmless = {"rope_type": "default", "partial_rotary_factor": 1.0, "factor": 1.0}
        found.update(
            {f"rope_parameters.{kind}.{key}": v for key, v in rest.items() if v != harmless.get(key)}
        )
    return layers


def _one_or_all(values: list[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else values


def _whole_number(values: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = values.get(key, default)
    if type(value) is not int or not 0 <= value < 2**31:
        raise _wrong(key, value, "an integer from 0 to 2^31 - 1")
    return value


def _number(values: dict[str, Any], key: str) -> float:
    value = values.pop(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise _wrong(key, value, "a positive number")
    return float(value)


def _wrong(key: str, value: object, expected: str) -> FormatError:
    return FormatError(f"config.json: {key}: found {value!r:.60}, expected {expected}")
