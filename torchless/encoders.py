"""What the families of encoders share: settings, and what stands behind the last layer.

Each token sees the whole text, and a norm follows every sum instead of preceding every block (Devlin et al. 2018).
"""

from __future__ import annotations

from torchless.blocks import rope_spec
from torchless.config import ConfigReader, ModelConfig
from torchless.plan import Plan, Value

__all__ = ["finish_encoder", "layer_norm", "read_encoder_settings"]


def read_encoder_settings(reader: ConfigReader, *, activation: str, rotates: bool) -> ModelConfig:
    """The settings of an encoder, refusing those that would change its arithmetic."""
    reader.expect("hidden_act", activation)
    reader.expect("attention.causal", False)
    reader.expect("hf.position_embedding_type", "absolute")
    reader.expect("attention.head_count_kv", reader.integer("attention.head_count"))
    num_heads, width = reader.integer("attention.head_count"), reader.integer("embedding_length")
    head_dim = reader.integer("attention.key_length", width // num_heads)
    reader.expect("attention.value_length", head_dim)
    tensors = reader.source.tensors
    vocab_size = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else 0
    reader.expect("vocab_size", vocab_size)
    types = tensors["token_types.weight"].shape[0] if "token_types.weight" in tensors else 0
    reader.expect("hf.type_vocab_size", types)
    reader.expect("rope.scaling.type", "none")
    rotated = reader.integer("rope.dimension_count", head_dim)
    theta = reader.number("rope.freq_base", 10000.0)
    return ModelConfig(
        architecture=reader.architecture,
        name=reader.text("general.name", ""),
        context_length=reader.integer("context_length"),
        vocab_size=vocab_size,
        num_layers=reader.integer("block_count"),
        embedding_length=width,
        feed_forward_length=reader.integer("feed_forward_length"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        norm_eps=reader.number("attention.layer_norm_epsilon", 1e-12),
        rope=rope_spec(rotated, theta, "half") if rotates else rope_spec(0, theta, "half"),
        window=None,
        tied=True,
    )


def layer_norm(plan: Plan, x: Value, name: str, config: ModelConfig) -> Value:
    """The norm of this name; its bias is used where the model has one."""
    bias = f"{name}.bias" if f"{name}.bias" in plan.shapes else None
    return plan.layer_norm(x, f"{name}.weight", bias=bias, eps=config.norm_eps)


def finish_encoder(plan: Plan, x: Value) -> None:
    """Final states, or the scores of a classifier that looks at the first token's.

    The classifier is ``output(tanh(dense(x)))``; a model may have either product alone.
    """
    x = plan.select_outputs(x)
    if "cls.weight" not in plan.shapes and "cls.output.weight" not in plan.shapes:
        plan.set_output(x, "states")
        return
    for name in ("cls", "cls.output"):
        if f"{name}.weight" not in plan.shapes:
            continue
        x = plan.linear(x, f"{name}.weight", bias=f"{name}.bias" if f"{name}.bias" in plan.shapes else None)
        if name == "cls" and "cls.output.weight" in plan.shapes:
            x = plan.soft_cap(x, 1.0)  # tanh
    plan.set_output(x, "scores")
