"""The llama family's configuration: what it reads, and what it refuses by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from torchless.errors import FormatError, UnsupportedError
from torchless.models import record_plan
from torchless.plan import Attention, Linear
from torchless.weights.source import TensorInfo

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "toy",
    "llama.block_count": 1,
    "llama.context_length": 128,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
SHAPES = {
    "token_embd.weight": (50, 64),
    "blk.0.attn_norm.weight": (64,),
    "blk.0.attn_q.weight": (64, 64),
    "blk.0.attn_k.weight": (32, 64),
    "blk.0.attn_v.weight": (32, 64),
    "blk.0.attn_output.weight": (64, 64),
    "blk.0.ffn_norm.weight": (64,),
    "blk.0.ffn_gate.weight": (96, 64),
    "blk.0.ffn_up.weight": (96, 64),
    "blk.0.ffn_down.weight": (64, 96),
    "output_norm.weight": (64,),
}


def source(settings: dict[str, Any] | None = None, shapes: dict[str, tuple[int, ...]] | None = None) -> Any:
    tensors = {
        name: TensorInfo(name, shape, "F32", 4 * int(np.prod(shape)))
        for name, shape in {**SHAPES, **(shapes or {})}.items()
    }
    metadata = {key: value for key, value in {**METADATA, **(settings or {})}.items() if value is not ...}
    return SimpleNamespace(
        metadata=metadata, tensors=tensors, path=Path("toy.gguf"), format="gguf", rope_layout="interleaved"
    )


def test_tied_head_reads_the_embedding_table() -> None:
    plan, config = record_plan(source())
    assert config.tied and isinstance(plan.ops[-1], Linear) and plan.ops[-1].weight == "token_embd.weight"
    plan, config = record_plan(source(shapes={"output.weight": (50, 64)}))
    assert not config.tied and plan.ops[-1].weight == "output.weight"  # type: ignore[union-attr]


def test_biases_are_used_where_the_file_has_them() -> None:
    plan, _ = record_plan(source(shapes={"blk.0.attn_q.bias": (64,), "blk.0.ffn_down.bias": (64,)}))
    biased = [op.weight for op in plan.ops if isinstance(op, Linear) and op.bias is not None]
    assert biased == ["blk.0.attn_q.weight", "blk.0.ffn_down.weight"]


def test_sliding_window_reaches_the_attention() -> None:
    plan, config = record_plan(source({"llama.attention.sliding_window": 16}))
    assert config.window == 16 and [op.window for op in plan.ops if isinstance(op, Attention)] == [16]


def test_head_width_may_differ_from_embedding_over_heads() -> None:
    wide = {
        "blk.0.attn_q.weight": (128, 64),
        "blk.0.attn_k.weight": (64, 64),
        "blk.0.attn_v.weight": (64, 64),
    }
    _, config = record_plan(
        source({"llama.attention.key_length": 32}, {**wide, "blk.0.attn_output.weight": (64, 128)})
    )
    assert config.head_dim == 32 and len(config.rope.inv_freq) == 16


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"general.architecture": "mamba9"}, "mamba9"),
        ({"general.architecture": ...}, "general.architecture"),
        ({"llama.hidden_act": "relu2"}, "relu2"),
        ({"llama.expert_used_count": 2}, "llama.expert_used_count"),
        ({"llama.attention.logit_softcap": 30.0}, "llama.attention.logit_softcap"),
        ({"hf.attn_logit_softcapping": 50.0}, "hf.attn_logit_softcapping"),
        ({"hf.pretraining_tp": 2}, "hf.pretraining_tp"),
        ({"llama.vocab_size": 51}, "llama.vocab_size"),
        ({"llama.attention.value_length": 8}, "llama.attention.value_length"),
        ({"llama.rope.scaling.type": "longrope"}, "longrope"),
    ],
)
def test_settings_that_would_change_the_arithmetic_are_refused_by_name(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(UnsupportedError, match=named):
        record_plan(source(settings))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"llama.block_count": ...}, "llama.block_count is missing"),
        ({"llama.block_count": "two"}, "llama.block_count: found 'two'"),
        ({"llama.attention.head_count": 0}, "head_count"),
        ({"llama.rope.freq_base": -1.0}, "rope base"),
    ],
)
def test_missing_and_senseless_settings_are_format_errors(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(FormatError, match=named):
        record_plan(source(settings))


def test_harmless_settings_are_ignored() -> None:
    record_plan(source({"hf.torch_dtype": "bfloat16", "hf.use_cache": True, "hf.attention_bias": False}))


def test_unread_tensor_stops_the_load_with_its_name() -> None:
    with pytest.raises(UnsupportedError, match=r"blk\.0\.attn_q_norm\.weight"):
        record_plan(source(shapes={"blk.0.attn_q_norm.weight": (16,)}))


def test_missing_tensor_is_named() -> None:
    broken = source()
    del broken.tensors["blk.0.ffn_up.weight"]
    with pytest.raises(UnsupportedError, match=r"blk\.0\.ffn_up\.weight"):
        record_plan(broken)


def test_an_output_with_other_tokens_than_the_embedding_is_refused() -> None:
    with pytest.raises(FormatError, match=r"token_embd\.weight has 50 rows and the output 60"):
        record_plan(source(shapes={"output.weight": (60, 64)}))


def test_shapes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"blk\.0\.ffn_down\.weight takes 90 inputs but gets 96"):
        record_plan(source(shapes={"blk.0.ffn_down.weight": (64, 90)}))


def test_plan_prints_as_a_readable_listing() -> None:
    lines = str(record_plan(source())[0]).splitlines()
    assert lines[0] == "%0 (tokens, 64) = embed token_embd.weight, scale=1"
    assert any(line.startswith("%2 (tokens, 64) = linear %1, blk.0.attn_q.weight") for line in lines)


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text"},
        {"architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "text_config": {}},
        {"architectures": ["LlamaForSequenceClassification"]},
    ],
)
def test_folders_of_other_architectures_are_refused_by_name(changes: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")
    from hf_models import write_hf_model

    from torchless.weights.open import open_source

    folder = write_hf_model(tmp_path / "model", **changes)
    with pytest.raises(UnsupportedError, match=r"llama4|Llama4|LlamaForSequenceClassification"):
        record_plan(open_source(folder))
