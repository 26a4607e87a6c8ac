"""Plans: sizes equal what a load takes, costs equal what is counted by hand, and the choice is the best that fits."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import torchless
from torchless.bench.shapes import find_shape
from torchless.bench.synthetic import write_synthetic
from torchless.errors import InvalidRequestError
from torchless.models import record_plan
from torchless.planning import forecast, rates
from torchless.planning.advice import choose
from torchless.planning.cost import step_cost
from torchless.planning.errors import measure_errors
from torchless.planning.findings import AS_IT_IS, RecipeForecast
from torchless.planning.forecast import plan_model
from torchless.planning.pages import as_json, as_markdown, plan_page
from torchless.planning.rates import Rates, Setting, measure_rates
from torchless.planning.sources import RecipeView, ShapeSource
from torchless.quantization.recipes import RECIPES, find_recipe
from torchless.weights.open import open_source

pytest.importorskip("torchless._core")

GIB = 1 << 30


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates and process sizes without measuring."""
    monkeypatch.setattr(
        forecast, "measure_rates", lambda name, setting: Rates(1e9 if name == "BF16" else 2e9, 1e11)
    )
    monkeypatch.setattr(forecast, "measure_attention", lambda op, setting, count: 2e-6 * count)
    monkeypatch.setattr(forecast, "measure_process", lambda model, is_shape: 50 << 20)


# -- what is counted ------------------------------------------------------------------------------------------


def test_a_shape_is_the_model_that_would_be_written(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test", "BF16")
    written, shape = open_source(tmp_path / "m.gguf"), ShapeSource("test")
    assert dict(shape.tensors) == dict(written.tensors)
    found, expected = (record_plan(source)[1] for source in (shape, written))
    assert replace(found, name="") == replace(expected, name="")


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q8_0", "Q2_K", "IQ4_XS"])
def test_a_view_has_the_types_and_sizes_that_quantize_writes(recipe: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test", "BF16")
    torchless.quantize(tmp_path / "m.gguf", tmp_path / "q.gguf", recipe)
    view = RecipeView(open_source(tmp_path / "m.gguf"), find_recipe(recipe))
    assert dict(view.tensors) == dict(open_source(tmp_path / "q.gguf").tensors)
    with pytest.raises(ValueError, match="only planned"):
        view.raw("output_norm.weight")


def test_weights_scratch_and_cache_are_those_of_a_load(tmp_path: Path, quick: None) -> None:
    write_synthetic(tmp_path / "m.gguf", "test", "BF16")
    torchless.quantize(tmp_path / "m.gguf", tmp_path / "q.gguf", "Q4_K_M")
    plan = plan_model(str(tmp_path / "m.gguf"), ctx=256, recipes=["Q4_K_M"], with_error=False, threads=2)
    row = plan.row("Q4_K_M")
    with torchless.load(tmp_path / "q.gguf", ctx=256, threads=2) as model:
        taken = model.info["memory_bytes"]
        ids = np.arange(200, dtype=np.int32)
        model.logits(ids.tolist())
        assert model.info["memory_bytes"]["kv_used"] <= row.kv_bytes
        vectors = sum(
            4 * info.shape[0]
            for info in open_source(tmp_path / "q.gguf").tensors.values()
            if len(info.shape) == 1
        )
        assert row.weight_bytes == taken["weights"] - vectors
        assert taken["kv_page"] * 8 == row.kv_bytes
        assert abs(row.scratch_bytes - taken["scratch"]) <= 0.35 * taken["scratch"]


def test_a_step_reads_each_weight_once_and_multiplies_it_for_each_token() -> None:
    source = ShapeSource("test")
    plan, _ = record_plan(source)
    tied = source.tensors["token_embd.weight"]
    inside = [
        info for name, info in source.tensors.items() if name.startswith("blk.") and len(info.shape) == 2
    ]
    num_weights = sum(info.shape[0] * info.shape[1] for info in inside)
    cost = step_cost(plan, source, 10, 1)
    assert cost.read_bytes == {"BF16": sum(info.num_bytes for info in inside) + tied.num_bytes}
    assert cost.operations == {"BF16": 2 * (10 * num_weights + tied.shape[0] * tied.shape[1])}


def test_a_token_reads_the_experts_that_it_takes() -> None:
    source = ShapeSource("test-moe")
    plan, config = record_plan(source)
    assert config.routing is not None
    experts = sum(info.num_bytes for info in source.tensors.values() if len(info.shape) == 3)
    others = sum(step_cost(plan, source, 10**6, 1).read_bytes.values()) - experts
    one = sum(step_cost(plan, source, 1, 1).read_bytes.values())
    share = config.routing.num_used / config.routing.num_experts
    assert one == pytest.approx(others + share * experts, rel=1e-3)


# -- what is measured -----------------------------------------------------------------------------------------


def test_rates_are_measured_by_products_of_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "PROMPT_TOKENS", 32)
    for name, activations in (("Q4_K", "int8"), ("Q4_K", "bf16"), ("BF16", "int8")):
        found = measure_rates(name, Setting(1, activations), streamed_bytes=4 << 20)
        assert 1e7 < found.decode_bytes_per_second < 1e12
        assert 1e8 < found.prefill_operations_per_second < 1e14


def test_errors_are_those_of_quantising_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Callable[[str], Path]
) -> None:
    monkeypatch.setenv("TORCHLESS_CACHE", str(tmp_path))
    source = open_source(shared_data("stories260K-wide256/s260k-wide-F32.gguf"))
    views = {
        name: RecipeView(source, RECIPES[name]) for name in ("F16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_0", "Q2_K")
    }
    errors = measure_errors(source, views, 1)
    assert sorted(errors, key=errors.__getitem__) == list(views)
    assert errors["F16"] < 1e-3 < errors["Q8_0"] < 0.01 < errors["Q4_K_M"] < errors["Q4_0"] < 0.15
    kept = list((tmp_path / "errors").iterdir())
    assert kept
    for path in kept:
        values = json.loads(path.read_text())
        path.write_text(json.dumps(dict.fromkeys(values, 0.25)))
    assert measure_errors(source, views, 1) == pytest.approx(dict.fromkeys(views, 0.5))
    for path in kept:
        path.write_text("{broken")
    assert measure_errors(source, views, 1) == errors


# -- what is chosen -------------------------------------------------------------------------------------------


def row(recipe: str, gib: float, speed: float, error: float | None) -> RecipeForecast:
    size = int(gib * GIB)
    return RecipeForecast(recipe, size, gib, size, 0, 0, 0, speed, speed, speed, error)


ROWS = [
    row("BF16", 16, 2, 0.001),
    row("Q8_0", 8.5, 4, 0.005),
    row("Q6_K", 6.6, 5, 0.02),
    row("Q4_K_M", 4.9, 7, 0.07),
    row("Q2_K", 3.0, 8, 0.3),
]


def bytes_of(recipe: str, context: int, kv: str) -> dict[str, int]:
    size = next(r.weight_bytes for r in ROWS if r.recipe == recipe)
    return {"weights": size, "kv": context * GIB // 4096 // (1 if kv == "f16" else 2)}


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        (32, ("Q8_0", "f16", 4096)),  # BF16 fits too, but nobody would notice
        (8, ("Q6_K", "f16", 4096)),
        (6, ("Q4_K_M", "f16", 4096)),
        (5.5, ("Q4_K_M", "q8_0", 4096)),  # rather a smaller cache than bad weights
        (5.2, ("Q4_K_M", "q8_0", 2048)),  # rather a shorter context
        (4.5, ("Q2_K", "f16", 4096)),
        (2, None),
    ],
)
def test_the_best_that_fits_is_chosen(gib: float, expected: tuple[str, str, int] | None) -> None:
    choice, advice = choose(bytes_of, ROWS, 4096, "f16", int(gib * GIB), fixed=False)
    assert (choice and (choice.recipe, choice.kv_type, choice.context_length)) == expected
    if choice is None:
        assert "Nothing fits into 2.0 GiB: even Q2_K with a cache of 512 tokens needs 3.1 GiB" in advice
    else:
        assert choice.total_bytes <= gib * GIB
        assert advice.startswith(f"Take {choice.recipe} with a context of {choice.context_length} tokens")
        assert 1 <= advice.count(". ") + 1 <= 2


def test_the_model_s_own_types_are_called_so_in_a_sentence() -> None:
    rows = [row(AS_IT_IS, 16, 2, 0.0), *ROWS[3:]]
    sizes = {r.recipe: {"weights": r.weight_bytes} for r in rows}

    def advice(gib: int) -> str:
        return choose(lambda recipe, *_: sizes[recipe], rows, 4096, "f16", gib * GIB, fixed=True)[1]

    assert "more exact, the model as it is takes the least: 16.0 GiB." in advice(8)
    assert advice(20).startswith("Take the model as it is with a context of 4096 tokens")


def test_a_wanted_context_is_not_shortened() -> None:
    choice, _ = choose(bytes_of, ROWS, 4096, "f16", int(5.2 * GIB), fixed=True)
    assert choice is not None and (choice.recipe, choice.context_length) == ("Q2_K", 4096)


def test_bits_stand_for_errors_that_were_not_measured() -> None:
    unmeasured = [row(r.recipe, r.file_bytes / GIB, r.decode_tokens_per_second, None) for r in ROWS]
    choice, advice = choose(bytes_of, unmeasured, 4096, "f16", 8 * GIB, fixed=False)
    assert choice is not None and choice.recipe == "Q6_K"
    assert "Q8_0" in advice


# -- the whole ------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_by_name() -> None:
    for arguments, message in (
        ({}, "a model or the name of a synthetic shape"),
        ({"synthetic": "llama-9"}, "unknown model shape 'llama-9'"),
        ({"synthetic": "test", "recipes": ["Q9"]}, "unknown recipe 'Q9'"),
        ({"synthetic": "test", "ctx": 1}, "ctx must be"),
        ({"synthetic": "test", "memory": "much"}, "'much' is not a size"),
        ({"synthetic": "test", "activations": "f8"}, "activations must be one of"),
        ({"synthetic": "test", "threads": 0}, "threads must be"),
        ({"synthetic": "test", "kv": "f8"}, "kv must be one of"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            plan_model(**arguments)  # type: ignore[arg-type]


def test_a_decoded_token_takes_its_attention_too(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "measure_attention", lambda op, setting, count: 0.5 if count == 1 else 1e-6)
    row = plan_model(synthetic="test", recipes=["Q8_0"], with_error=False).row("Q8_0")
    num_layers = find_shape("test").num_layers
    assert row.decode_tokens_per_second == pytest.approx(1 / (0.5 * num_layers), rel=0.01)


def test_rates_of_several_rounds_average_their_times() -> None:
    assert Rates.average([Rates(1.0, 2.0), Rates(3.0, 6.0)]) == Rates(1.5, 3.0)


def test_every_recipe_has_a_row_and_the_pages_are_sound(quick: None) -> None:
    plan = plan_model(synthetic="test", memory="1GiB", ctx=512, with_error=False)
    assert plan.rows[0].recipe == AS_IT_IS
    assert {"Q4_K_M", "Q8_0", "BF16", "Q2_K", "IQ4_XS"} <= {row.recipe for row in plan.rows}
    half, whole = plan.row("Q4_K_M"), plan.row("BF16")
    assert half.decode_tokens_per_second > 2 * whole.decode_tokens_per_second > 0
    assert half.long_decode_tokens_per_second < half.decode_tokens_per_second
    table = as_markdown(plan)
    assert table.count("\n|") == len(plan.rows) + 2 and plan.advice in table
    values = json.loads(as_json(plan))
    assert values["rows"][0]["total_bytes"] == plan.rows[0].total_bytes
    page = plan_page(plan)
    assert plan.choice is not None and plan.choice.recipe in page
    charts = page.split("<svg")[1:]
    assert len(charts) == 2
    for chart in charts:
        ET.fromstring("<svg" + chart.partition("</svg>")[0] + "</svg>")
