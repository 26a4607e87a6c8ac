"""What a model is: its frozen configuration, and the reader that refuses what a family does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchless import quants
from torchless.errors import FormatError, UnsupportedError
from torchless.plan import RopeSpec, Routing
from torchless.pooling_types import Pooling
from torchless.weights.source import WeightSource

__all__ = ["ConfigReader", "ModelConfig"]

# Keys that describe, license or train a model but do not change what it computes.
_HARMLESS = frozenset(
    {
        "hf.architecture",
        "hf.model_type",
        "hf._name_or_path",
        "hf.torch_dtype",
        "hf.dtype",
        "hf.transformers_version",
        "hf.use_cache",
        "hf.initializer_range",
        "hf.attention_dropout",
        "hf.hidden_dropout",
        "hf.resid_pdrop",
        "hf.embd_pdrop",
        "hf.is_decoder",
        "hf.output_attentions",
        "hf.output_hidden_states",
        "hf.return_dict",
        "hf.id2label",
        "hf.label2id",
        "hf.problem_type",
        "hf.auto_map",
        "hf.max_length",
        "hf.chunk_size_feed_forward",
        "hf.unk_token_id",
        "hf.sep_token_id",
        "hf.keys_to_ignore_at_inference",
        "hf.gradient_checkpointing",
        "hf.tokenizer_class",
        "hf.cross_attention_hidden_size",
        "hf.output_router_logits",
        "hf.router_aux_loss_coef",
        "hf.router_jitter_noise",
    }
)
_HARMLESS_PREFIXES = ("hf.generation.",)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a model. Widths are elements, lengths are tokens.

    Attributes:
        architecture: GGUF's name of the architecture.
        name: the model's own name, "" if it has none.
        context_length: tokens that the model was trained for.
        vocab_size: rows of the embedding table.
        num_layers: transformer blocks.
        embedding_length: width of the residual stream.
        feed_forward_length: width inside the MLP.
        num_heads, num_kv_heads, head_dim: query heads, key/value heads, and the width of each.
        norm_eps: epsilon of the norms.
        rope: rotary embedding with all scaling folded in.
        query_rope: that of queries, where it is another.
        window: tokens that attention looks back, itself included; None = all.
        windowed: for each layer whether it has the window, where not all have it.
        tied: whether the output projection is the embedding table.
        routing: how tokens choose experts, in models that have them; None in others.
        attention_scale: factor on the scores; None = 1 / sqrt(head_dim).
        attention_softcap: the scores' soft cap; None without one.
        logit_softcap: the logits' soft cap; None without one.
        embedding_scale, residual_scale, logit_scale: factors on the embeddings, on what each block adds to the
            residual stream, and on the logits.
        pooling: how a text's states become its vector, where the model says it.
        makes_vectors: whether the model was made for embeddings, though it could write text.
        normalize: whether vectors are made unit long.
    """

    architecture: str
    name: str
    context_length: int
    vocab_size: int
    num_layers: int
    embedding_length: int
    feed_forward_length: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: RopeSpec
    window: int | None
    tied: bool
    windowed: tuple[bool, ...] | None = None
    query_rope: RopeSpec | None = None
    routing: Routing | None = None
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    pooling: Pooling | None = None
    makes_vectors: bool = False
    normalize: bool = True

    def window_of(self, layer: int) -> int | None:
        """Tokens that attention looks back in a layer; None = all."""
        return self.window if self.windowed is None or self.windowed[layer] else None


class ConfigReader:
    """Reads a model's settings and remembers which: `finish` refuses the load if one was left unread.

    Keys are GGUF's without the architecture's prefix (``block_count`` for ``llama.block_count``), for both
    formats. A setting that a family does not read could change its arithmetic, so it is an error, by name.
    """

    def __init__(self, source: WeightSource, wanted_context: int | None = None) -> None:
        self.source = source
        self.wanted_context = (
            wanted_context  # tokens that the model is loaded for; None: those it was trained for
        )
        self.metadata: Mapping[str, Any] = source.metadata
        self.architecture = str(self.metadata.get("general.architecture", ""))
        self._read: set[str] = set()
        self.tensors_read: set[str] = set()

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer. Raises FormatError when it is absent without a default, or of another kind."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(key, value, "a positive integer")
        return value

    def count(self, key: str) -> int:
        """A whole number, 0 where the model does not have it."""
        value = self._value(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(key, value, "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
            raise self._wrong(key, value, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """A list of positive finite numbers, or None when the model has none."""
        value = self.metadata.get(self._name(key))
        self._read.add(self._name(key))
        if value is None:
            return None
        is_list = isinstance(value, list | tuple) and len(value) <= 1 << 16
        if not is_list or not all(type(item) in (int, float) and 0 < item < 1e30 for item in value):
            raise self._wrong(key, value, "a list of positive numbers")
        return tuple(float(item) for item in value)

    def bounds(self, key: str, count: int, default: float) -> tuple[float, ...]:
        """A list of `count` numbers, infinite ones allowed, or the default for each when the model has none."""
        value = self.metadata.get(self._name(key))
        self._read.add(self._name(key))
        if value is None:
            return (default,) * count
        is_list = isinstance(value, Sequence) and len(value) == count
        if not is_list or not all(type(item) in (int, float) and item == item for item in value):
            raise self._wrong(key, value, f"{count} numbers")
        return tuple(float(item) for item in value)

    def flags(self, key: str, count: int) -> tuple[bool, ...] | None:
        """A list of `count` times true or false, or None when the model has none."""
        value = self.metadata.get(self._name(key))
        self._read.add(self._name(key))
        if value is None:
            return None
        is_list = isinstance(value, Sequence) and len(value) == count
        if not is_list or not all(isinstance(item, bool) for item in value):
            raise self._wrong(key, value, f"{count} times true or false")
        return tuple(value)

    def integers(self, key: str, count: int) -> tuple[int, ...]:
        """`count` positive integers, of which a model may say one for all."""
        value = self._value(key, None)
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        values: list[Any] = list(value) if is_list else [value] * count
        if len(values) != count or any(type(item) is not int or item < 1 for item in values):
            raise self._wrong(key, value, f"a positive integer, or one for each of {count} layers")
        return tuple(values)

    def scalar_tensor(self, name: str, default: float) -> float:
        """The one finite number in a tensor that belongs to the configuration, or what it is without it."""
        info = self.source.tensors.get(name)
        if info is None:
            return default
        if info.type not in ("F32", "F16", "BF16") or info.shape != (1,):
            raise FormatError(
                f"{self.source.path}: tensor {name} is {info.type} {info.shape}, expected one float"
            )
        self.tensors_read.add(name)
        value = float(quants.by_name(info.type).decode(self.source.raw(name)).reshape(-1)[0])
        if not math.isfinite(value):
            raise FormatError(f"{self.source.path}: tensor {name} holds {value}, expected a finite number")
        return value

    def float_tensor(self, name: str, most: float = 1e30) -> tuple[float, ...] | None:
        """A small float32 tensor that belongs to the configuration, or None when the model has none; its numbers are
        positive and less than `most`."""
        info = self.source.tensors.get(name)
        if info is None:
            return None
        if info.type != "F32" or len(info.shape) != 1 or info.shape[0] > 1 << 16:
            raise FormatError(
                f"{self.source.path}: tensor {name} is {info.type} {info.shape}, expected a vector of F32"
            )
        values = tuple(float(value) for value in self.source.raw(name).view("<f4"))
        if not all(0 < value < most for value in values):
            raise FormatError(
                f"{self.source.path}: tensor {name} holds a number that is not positive and finite"
            )
        return values

    def has(self, key: str) -> bool:
        """Whether the model has this setting (null counts as absent)."""
        return self.metadata.get(self._name(key)) is not None

    def has_read(self, key: str) -> bool:
        """Whether the family asked for this setting."""
        return self._name(key) in self._read

    def expect(self, key: str, *allowed: Any) -> None:
        """A setting that must be absent or have one of these values, because the family computes no other."""
        name = self._name(key)
        self._read.add(name)
        value = self.metadata.get(name)
        if value is not None and value not in allowed:
            expected = " or ".join(repr(item) for item in allowed)
            raise UnsupportedError(
                f"{self.source.path}: {name} is {value!r:.80}; "
                f"torchless runs {self.architecture} models with {expected}"
            )

    def finish(self) -> None:
        """Raises UnsupportedError naming every setting of the architecture that nobody read."""
        prefixes = (f"{self.architecture}.", "hf.")
        unread = [
            f"{key} = {self.metadata[key]!r:.60}"
            for key in self.metadata
            if key.startswith(prefixes)
            and key not in self._read
            and key not in _HARMLESS
            and not key.startswith(_HARMLESS_PREFIXES)
            and self.metadata[key] is not None
        ]
        if unread:
            raise UnsupportedError(
                f"{self.source.path}: settings that torchless does not know for {self.architecture} models and that "
                f"may change the result: {', '.join(unread)}"
            )

    def _name(self, key: str) -> str:
        return key if key.startswith(("general.", "tokenizer.", "hf.")) else f"{self.architecture}.{key}"

    def _value(self, key: str, default: Any) -> Any:
        name = self._name(key)
        self._read.add(name)
        value = self.metadata.get(name)
        if value is None:
            value = default
        if value is None:
            raise FormatError(f"{self.source.path}: {name} is missing; a {self.architecture} model needs it")
        return value

    def wrong(self, key: str, expected: str) -> FormatError:
        """The error of a setting that does not fit the others."""
        return self._wrong(key, self.metadata.get(self._name(key)), expected)

    def _wrong(self, key: str, value: Any, expected: str) -> FormatError:
        return FormatError(f"{self.source.path}: {self._name(key)}: found {value!r:.60}, expected {expected}")
