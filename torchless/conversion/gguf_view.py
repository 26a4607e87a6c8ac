"""A Hugging Face folder as the GGUF file of it."""

from __future__ import annotations

from torchless.conversion.configuration import gguf_settings, rope_factors
from torchless.conversion.families import Family, find_conversion
from torchless.conversion.tokenizer_metadata import tokenizer_metadata
from torchless.conversion.views import ConvertedView
from torchless.errors import UnsupportedError
from torchless.long_rope import FACTOR_TENSORS
from torchless.models import record_plan
from torchless.plan import Routing
from torchless.weights.safetensors import SafetensorsSource

__all__ = ["as_gguf"]


def as_gguf(source: SafetensorsSource) -> ConvertedView:
    """A Hugging Face folder as the GGUF file of it would be, tokenizer included.

    Raises:
        UnsupportedError: a model that a GGUF file cannot describe.
    """
    _, config = record_plan(source)
    architecture = str(source.metadata["general.architecture"])
    family = find_conversion(architecture, has_experts=config.routing is not None)
    if config.routing is not None:
        _check_weights_norm(source, config.routing, family)
    folder = source.path if source.path.is_dir() else source.path.parent
    tokenizer = tokenizer_metadata(folder, config.vocab_size, has_ranks=family.has_ranks)
    metadata = {**gguf_settings(source), **tokenizer}
    for name, other in family.gguf_settings.items():
        metadata.setdefault(f"{architecture}.{name}", metadata[f"{architecture}.{other}"])
    if "token_types.weight" in source.tensors:  # of encoders; llama.cpp asks for it
        metadata["tokenizer.ggml.token_type_count"] = source.tensors["token_types.weight"].shape[0]
    extra = rope_factors(source, config)
    if FACTOR_TENSORS["long"] in extra:  # llama.cpp takes the magnitude to be 1 where a file does not say it
        metadata.pop(f"{architecture}.rope.scaling.attention_factor", None)
        metadata[f"{architecture}.rope.scaling.attn_factor"] = config.rope.magnitude
    return ConvertedView(
        source,
        family,
        metadata,
        layout="interleaved",
        vector_type="F32",
        names=family.gguf_names,
        extra=extra,
    )


def _check_weights_norm(source: SafetensorsSource, routing: Routing, family: Family) -> None:
    expected = family.expert_weights_norm
    if expected is not None and routing.normalised != expected:
        found, taken = (str(flag).lower() for flag in (routing.normalised, expected))
        raise UnsupportedError(
            f"{source.path}: norm_topk_prob is {found}, which a GGUF file cannot say: readers take it to be {taken} "
            f"in {source.metadata['general.architecture']} models, and would run another model. Run the folder itself; "
            f"--quant makes it smaller while it is loaded"
        )
