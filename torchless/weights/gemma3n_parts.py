"""Gemma 3n's folders in the words of GGUF files: settings that have defaults or lists, and names.

Folders say which share of a gate's numbers shall count for nothing; GGUF files by how many standard deviations it must
exceed its mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

from torchless.errors import FormatError
from torchless.quants import Bytes
from torchless.weights.expert_stacks import renamed
from torchless.weights.pieces import FilePiece
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import FileTensor, StoredWeight

__all__ = ["gemma3n_names", "gemma3n_settings"]

_LOCAL, _WHOLE = "sliding_attention", "full_attention"
_NAMES = {"ffn_norm": "post_attention_norm", "pre_ffw_norm": "ffn_norm"}
"""What the tables of names make of the norms behind attention and before the MLP."""

_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262400,
    "vocab_size_per_layer_input": 262144,
    "hidden_size": 2048,
    "hidden_size_per_layer_input": 256,
    "intermediate_size": 16384,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "final_logit_softcapping": 30.0,
    "num_kv_shared_layers": 15,
    "altup_num_inputs": 4,
    "altup_active_idx": 0,
    "tie_word_embeddings": True,
}
_BASES = {_WHOLE: ("rope_theta", 1e6, ""), _LOCAL: ("rope_local_base_freq", 1e4, "_swa")}
_UNUSED = ("laurel_rank", "altup_coef_clip")  # shapes say the first; the second is for training


def gemma3n_settings(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings without those of layers, GGUF's settings of layers without the architecture's name before them).

    Raises:
        FormatError: a setting of the wrong kind.
    """
    if config.get("model_type") != "gemma3n_text":
        return config, {}
    found = {**_DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    count = _whole_number(found, "num_hidden_layers")
    kinds = found.pop("layer_types", None)
    if kinds is None:
        kinds = [_LOCAL if (i + 1) % 5 else _WHOLE for i in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or not set(kinds) <= {_LOCAL, _WHOLE}:
        raise _wrong("layer_types", kinds, f"{_LOCAL} or {_WHOLE} for each of {count} layers")
    widths = found.pop("intermediate_size")
    widths = list(widths) if isinstance(widths, list) else [widths] * count
    layers: dict[str, Any] = {
        "attention.sliding_window_pattern": [kind == _LOCAL for kind in kinds],
        "attention.shared_kv_layers": _whole_number(found, "num_kv_shared_layers"),
        "embedding_length_per_layer_input": _whole_number(found, "hidden_size_per_layer_input"),
        "feed_forward_length": widths[0] if len(set(map(str, widths))) == 1 else widths,
        "altup.num_inputs": _whole_number(found, "altup_num_inputs"),
        "altup.active_idx": _whole_number(found, "altup_active_idx"),
        "activation_sparsity_scale": _deviations(found.pop("activation_sparsity_pattern", None), count),
        "attention.value_length": _whole_number(found, "head_dim"),
        **_rope(found),
    }
    consumed = ("num_kv_shared_layers", "hidden_size_per_layer_input", "altup_num_inputs", "altup_active_idx")
    for key in (*consumed, *_UNUSED):
        found.pop(key, None)
    # Tokens without an embedding for the layers stand for images and sound.
    found["vocab_size"] = min(
        _whole_number(found, "vocab_size"), _whole_number(found, "vocab_size_per_layer_input")
    )
    del found["vocab_size_per_layer_input"]
    return found, layers


def gemma3n_names(weights: Iterable[StoredWeight], metadata: Mapping[str, Any]) -> Iterator[StoredWeight]:
    """The weights, Gemma 3n's norms under GGUF's names, without embeddings of tokens that are not text."""
    if metadata["general.architecture"] != "gemma3n":
        yield from weights
        return
    num_tokens = metadata.get("gemma3n.vocab_size", 0)
    for weight in weights:
        pieces = weight.info.name.split(".")
        if pieces[0] == "blk":
            pieces[2] = _NAMES.get(pieces[2], pieces[2])
        if (
            weight.info.name in ("token_embd.weight", "output.weight")
            and weight.info.shape[0] > num_tokens > 0
        ):
            yield _FirstRows.of(weight, num_tokens)
            continue
        yield renamed(weight, ".".join(pieces))


class _FirstRows(NamedTuple):
    """A matrix without its last rows."""

    info: TensorInfo
    weight: StoredWeight

    @classmethod
    def of(cls, weight: StoredWeight, num_rows: int) -> _FirstRows:
        info = weight.info
        num_bytes = info.num_bytes // info.shape[0] * num_rows
        return cls(TensorInfo(info.name, (num_rows, *info.shape[1:]), info.type, num_bytes), weight)

    @property
    def origin(self) -> FileTensor:
        """Where it comes from."""
        return self.weight.origin

    @property
    def is_view(self) -> bool:
        """As the weight's own."""
        return self.weight.is_view

    def raw(self) -> Bytes:
        """The bytes of these rows."""
        return self.weight.raw()[: self.info.num_bytes]

    def pieces(self) -> tuple[FilePiece, ...]:
        """Where they lie, if the weight is one piece."""
        found = self.weight.pieces()
        return (found[0]._replace(num_bytes=self.info.num_bytes),) if len(found) == 1 else ()


def _deviations(pattern: Any, count: int) -> list[float]:
    """By how many standard deviations a gate must exceed its mean, for the share of it that shall not count."""
    if pattern is None:
        pattern = [0.95] * (10 if count > 10 else 0)
        pattern += [0.0] * (count - len(pattern))
    shares = pattern if isinstance(pattern, list) else [pattern] * count
    if len(shares) != count or any(type(item) not in (int, float) or not 0 <= item < 1 for item in shares):
        raise _wrong(
            "activation_sparsity_pattern", pattern, f"a number from 0 to 1 for each of {count} layers"
        )
    return [NormalDist().inv_cdf(share) if share > 0 else -math.inf for share in shares]


def _rope(found: dict[str, Any]) -> dict[str, Any]:
    """Bases of both kinds of layers; what is not known stays in `found`, to be refused by name."""
    parameters = found.pop("rope_parameters", None)
    layers: dict[str, Any] = {}
    for kind, (old_key, base, suffix) in _BASES.items():
        old = found.pop(old_key, base)
        of_kind = parameters.get(kind) if isinstance(parameters, dict) else {}
        if not isinstance(of_kind, dict):
            raise _wrong("rope_parameters", parameters, f"an object for {_LOCAL} and one for {_WHOLE}")
        rest = dict(of_kind)
        value = rest.pop("rope_theta", old)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
            raise _wrong("rope_theta", value, "a positive number")
        layers[f"rope.freq_base{suffix}"] = float(value)
        found.update(
            {f"rope_parameters.{kind}.{k}": v for k, v in rest.items() if (k, v) != ("rope_type", "default")}
        )
    return layers


def _whole_number(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    if type(value) is not int or not 0 <= value < 2**31:
        raise _wrong(key, value, "an integer from 0 to 2^31 - 1")
    return value


def _wrong(key: str, value: object, expected: str) -> FormatError:
    return FormatError(f"config.json: {key}: found {value!r:.60}, expected {expected}")
