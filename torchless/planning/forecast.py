"""Forecasts: what each recipe of a model takes and how fast it is here, and which to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchless.activation_types import activation_type
from torchless.backends.base import PAGE_TOKENS, ExecutorOptions
from torchless.bench.random_blocks import BLOCK_TYPES
from torchless.errors import InvalidRequestError
from torchless.kv_types import kv_type_name, split_kv_type
from torchless.lazy_weights import LazyWeights
from torchless.loading import MAX_BATCH_TOKENS, MAX_THREADS
from torchless.memory import available_memory
from torchless.models import ModelConfig, record_plan
from torchless.plan import Attention, Plan
from torchless.planning.cost import StepCost, step_cost
from torchless.planning.errors import measure_errors
from torchless.planning.findings import AS_IT_IS, ModelPlan, RecipeForecast
from torchless.planning.process import measure_process
from torchless.planning.rates import PROMPT_TOKENS, Rates, Setting, measure_attention, measure_rates
from torchless.planning.sources import RecipeView, ShapeSource
from torchless.processors import usable_cores
from torchless.quantization.quantize import parse_size
from torchless.quantization.recipes import RECIPES, find_recipe
from torchless.weights.open import open_source
from torchless.weights.source import WeightSource

__all__ = ["plan_model"]

_AUTO_CONTEXT = 4096
_ROUNDS = 2  # in turn, since others disturb a while at a time
_UNUSUAL = ("F32", "MXFP4_MOE")  # left out unless they are asked for


def plan_model(
    model: str | None = None,
    *,
    synthetic: str | None = None,
    ctx: int | None = None,
    memory: int | str | None = None,
    kv: str = "f16",
    activations: str = "int8",
    threads: int | None = None,
    batch_tokens: int = 512,
    recipes: Sequence[str] | None = None,
    with_error: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> ModelPlan:
    """Says what each recipe of a model would take here and how fast it would be; no weights are loaded.

    Speeds come from products timed now, one type after the other (some hundred megabytes of memory while it lasts).
    Predictions were within 3 % of peak memory and, where memory kept its pace, 15 % of tokens per second
    (docs/plan.md).

    Args:
        model: a GGUF file, a Hugging Face folder, a name of the hub or a URL.
        synthetic: a shape of `torchless.bench.shapes` instead, such as ``"llama-3.2-1b"``.
        ctx: context length in tokens; what the model was trained for, at most 4096, if left out.
        memory: bytes to choose for, or ``"8GiB"``; what this process may still take if left out.
        kv: number format of cached keys and values.
        activations: what products multiply weights with.
        threads: worker threads.
        batch_tokens: prompt tokens computed at once.
        recipes: which; all that torchless has kernels for if left out. The model's own types are always there.
        with_error: measure what recipes do to the weights (kept on disk, see ``TORCHLESS_CACHE``).
        progress: called with a line on what is being done.

    Raises:
        TorchlessError: the model cannot be opened or is not supported, or an argument is out of range.

    Example:
        >>> import torchless
        >>> found = torchless.plan_model(synthetic="test", recipes=["Q8_0", "Q4_0"], with_error=False)
        >>> [row.recipe for row in found.rows]
        ['as it is', 'Q8_0', 'Q4_0']
    """
    from torchless.planning.advice import choose

    if (model is None) == (synthetic is None):
        raise InvalidRequestError("plan_model takes a model or the name of a synthetic shape, and not both")
    source: WeightSource = ShapeSource(synthetic) if synthetic is not None else open_source(str(model))
    try:
        setting = _setting(threads, activations, kv)
        job = _Job.of(source, setting, ctx, batch_tokens, recipes)
        limit, why = _memory(memory)
        process = measure_process(synthetic or str(model), is_shape=synthetic is not None)
        rates, attention = job.measure(progress)
        errors = measure_errors(source, job.views, setting.num_threads, progress) if with_error else {}
        rows = job.rows(rates, attention, process, errors)
        choice, advice = choose(job.bytes_of, rows, job.context_length, kv, limit, fixed=ctx is not None)
        return ModelPlan(
            model=str(source.path),
            context_length=job.context_length,
            kv_type=setting.kv_type,
            activations=setting.activations,
            num_threads=setting.num_threads,
            batch_tokens=batch_tokens,
            read_bytes_per_second=job.read_bytes_per_second,
            memory_bytes=limit,
            memory_limit=why,
            rows=tuple(rows),
            choice=choice,
            advice=advice,
            lazy_bytes=job.lazy_bytes(process),
        )
    finally:
        source.close()


def _setting(threads: int | None, activations: str, kv: str) -> Setting:
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise InvalidRequestError(f"threads must be a whole number from 1 to {MAX_THREADS}, got {threads!r}")
    return Setting(threads or usable_cores(), activation_type(activations), kv_type_name(*split_kv_type(kv)))


def _memory(memory: int | str | None) -> tuple[int | None, str]:
    if memory is not None:
        return parse_size(memory), "the given memory"
    available = available_memory()
    return (None, "") if available is None else (available.num_bytes, available.limit)


@dataclass(frozen=True, slots=True)
class AttentionSeconds:
    """Of all layers: in a prompt of `rates.PROMPT_TOKENS` tokens, and with one token at the beginning of a context."""

    prompt: float
    token: float


@dataclass(slots=True)
class _Job:
    """One model under one setting."""

    source: WeightSource
    plan: Plan
    config: ModelConfig
    setting: Setting
    context_length: int
    batch_tokens: int
    views: Mapping[str, RecipeView]
    read_bytes_per_second: float = 0.0

    @classmethod
    def of(
        cls,
        source: WeightSource,
        setting: Setting,
        ctx: int | None,
        batch_tokens: int,
        recipes: Sequence[str] | None,
    ) -> _Job:
        plan, config = record_plan(source)
        if ctx is not None and not 2 <= ctx < 2**31:
            raise InvalidRequestError(f"ctx must be a whole number of tokens from 2 on, got {ctx!r}")
        if not 1 <= batch_tokens <= MAX_BATCH_TOKENS:
            raise InvalidRequestError(f"batch_tokens must be 1 to {MAX_BATCH_TOKENS}, got {batch_tokens!r}")
        names = [find_recipe(name).name for name in recipes or [r for r in RECIPES if r not in _UNUSUAL]]
        views = {name: RecipeView(source, RECIPES[name]) for name in dict.fromkeys(names)}
        context = ctx or min(config.context_length, _AUTO_CONTEXT)
        return cls(source, plan, config, setting, context, batch_tokens, views)

    @property
    def variants(self) -> dict[str, WeightSource]:
        """The model in its own types, then by recipe."""
        return {AS_IT_IS: self.source, **self.views}

    def bytes_of(self, recipe: str, context_length: int, kv_type: str) -> dict[str, int]:
        """What a backend would take: ``weights``, ``scratch``, ``kv`` and, of some models, ``state``.

        For one sequence, which wants one row of logits a step: there is room for more, but it is not touched.
        """
        from torchless.backends import cpu

        return cpu.required_bytes(
            self.plan, self.variants[recipe], self._options(context_length, kv_type, "off")
        )

    def lazy_bytes(self, process: int) -> int | None:
        """What a process takes whose weights stay in the file; None where they cannot."""
        from torchless.backends import cpu

        options = self._options(self.context_length, self.setting.kv_type, "all")
        needed = cpu.required_bytes(self.plan, self.source, options)
        return process + sum(needed.values()) if "file" in needed else None

    def _options(self, context_length: int, kv_type: str, lazy: LazyWeights) -> ExecutorOptions:
        num_pages = -(-context_length // PAGE_TOKENS)
        rows = min(self.batch_tokens, num_pages * PAGE_TOKENS)
        return ExecutorOptions(
            *(num_pages, rows, 1, self.setting.num_threads, kv_type),
            activations=self.setting.activations,
            lazy=lazy,
        )

    def measure(self, progress: Callable[[str], None]) -> tuple[dict[str, Rates], AttentionSeconds]:
        """Rates of every type that a product has, and how long attention takes."""
        from torchless.backends.cpu.extension import load_extension

        types = {name for source in self.variants.values() for name in self._cost(source, 1).read_bytes}
        measured: dict[str, list[Rates]] = {name: [] for name in sorted(types & set(BLOCK_TYPES))}
        for _ in range(_ROUNDS):
            for name, rounds in measured.items():
                progress(f"timing products with {name}")
                rounds.append(measure_rates(name, self.setting))
        rates = {name: Rates.average(rounds) for name, rounds in measured.items()}
        progress("timing attention and memory")
        core = load_extension()
        self.read_bytes_per_second = float(core.measure_read_bandwidth(self.setting.num_threads, 256 << 20))
        shapes: dict[tuple[Any, ...], AttentionSeconds] = {}
        layers: list[AttentionSeconds] = []
        for op in (op for op in self.plan.ops if isinstance(op, Attention)):
            key = (op.num_heads, op.num_kv_heads, op.head_dim, op.window, op.softcap)
            if key not in shapes:
                shapes[key] = AttentionSeconds(
                    *(measure_attention(op, self.setting, count) for count in (PROMPT_TOKENS, 1))
                )
            layers.append(shapes[key])
        attention = AttentionSeconds(sum(one.prompt for one in layers), sum(one.token for one in layers))
        return rates, attention

    def rows(
        self,
        rates: Mapping[str, Rates],
        attention: AttentionSeconds,
        process: int,
        errors: Mapping[str, float],
    ) -> list[RecipeForecast]:
        """One forecast each, largest first; recipes that come out as the model is are left out."""
        found = []
        for name, source in self.variants.items():
            if not set(self._cost(source, 1).read_bytes) <= set(rates):
                continue  # a type without kernels
            needed = self.bytes_of(name, self.context_length, self.setting.kv_type)
            tensors = source.tensors.values()
            file_bytes = sum(info.num_bytes for info in tensors)
            decode = _decode_seconds(self._cost(source, 1), rates) + attention.token
            kv = needed["kv"] / self.read_bytes_per_second
            prompt = self._cost(source, PROMPT_TOKENS)
            found.append(
                RecipeForecast(
                    recipe=name,
                    file_bytes=file_bytes,
                    bits_per_weight=8 * file_bytes / self._num_weights,
                    weight_bytes=needed["weights"],
                    scratch_bytes=needed["scratch"],
                    kv_bytes=needed["kv"] + needed.get("state", 0),
                    process_bytes=process,
                    decode_tokens_per_second=1 / decode,
                    long_decode_tokens_per_second=1 / (decode + kv),
                    prefill_tokens_per_second=PROMPT_TOKENS
                    / (_prefill_seconds(prompt, rates) + attention.prompt),
                    error=0.0 if errors and name == AS_IT_IS else errors.get(name),
                )
            )
        return sorted(found, key=lambda row: (row.recipe != AS_IT_IS, -row.file_bytes))

    @property
    def _num_weights(self) -> int:
        from math import prod

        return sum(prod(info.shape) for info in self.source.tensors.values())

    def _cost(self, source: WeightSource, num_tokens: int) -> StepCost:
        return step_cost(self.plan, source, num_tokens, 1)


def _decode_seconds(cost: StepCost, rates: Mapping[str, Rates]) -> float:
    return sum(count / rates[name].decode_bytes_per_second for name, count in cost.read_bytes.items())


def _prefill_seconds(cost: StepCost, rates: Mapping[str, Rates]) -> float:
    return sum(count / rates[name].prefill_operations_per_second for name, count in cost.operations.items())
