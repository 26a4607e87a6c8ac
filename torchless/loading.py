"""Loading a model: settings checked, memory counted before any is taken, parts put together."""

from __future__ import annotations

import logging
import os
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from torchless import backends
from torchless.activation_types import ActivationType, activation_type
from torchless.adapters.applied import AdaptedSource, adapted_plan
from torchless.adapters.binding import bind_adapters
from torchless.adapters.open import ScaledPath, scaled_paths
from torchless.arguments import flag, whole_number
from torchless.backends.base import Backend, KvType, Progress
from torchless.engine.pacing import DEFAULT_SLOWDOWN, StepPacing, slowdown
from torchless.errors import InvalidRequestError, ModelNotFoundError
from torchless.file_speed import measure_file_speed
from torchless.fitting import fit
from torchless.hub import local_path, parse_name
from torchless.keywords import resolve_keywords
from torchless.kv_types import kv_type_name, split_kv_type
from torchless.lazy_weights import LazyWeights, lazy_weights, memory_bytes
from torchless.loaded_model import LoadedModel
from torchless.models import record_plan
from torchless.observing import trace_path
from torchless.placement import thread_cpus
from torchless.prefix_cache_settings import (
    PrefixCacheSettings,
    can_share_pages,
    open_folder,
    open_page_store,
    prefix_cache_settings,
)
from torchless.processors import usable_cores
from torchless.sampling.parameters import SamplingParams
from torchless.speculative import (
    SpeculativeSettings,
    build_speculation,
    load_draft_model,
    speculative_settings,
)
from torchless.tasks import Task, task_name
from torchless.text.templates import template_names, template_source
from torchless.text.tokenizer import Tokenizer
from torchless.weights.open import open_source
from torchless.weights.source import WeightSource

__all__ = ["LoadSettings", "LoadedModel", "load_model", "load_settings", "tokenizer_of"]

_log = logging.getLogger("torchless")

BUILT_IN_MODEL = Path(__file__).parent / "data" / "stories.gguf"
MAX_THREADS = 1024
_BYTES_PER_THREAD = 4 << 20
MAX_BATCH_TOKENS = 1 << 16

# Other tools' keyword -> ours.
_ALIASES = {
    "model_path": "model",
    "n_ctx": "ctx",
    "num_ctx": "ctx",
    "ctx_size": "ctx",
    "max_model_len": "ctx",
    "max_seq_len": "ctx",
    "max_kv_size": "ctx",
    "n_threads": "threads",
    "num_thread": "threads",
    "num_threads": "threads",
    "kv_type": "kv",
    "kv_dtype": "kv",
    "kv_cache_dtype": "kv",
    "n_batch": "batch_tokens",
    "num_batch": "batch_tokens",
    "batch_size": "batch_tokens",
    "prefill_step_size": "batch_tokens",
    "max_num_batched_tokens": "batch_tokens",
    "lora_path": "lora",
    "adapter_path": "lora",
    "model_draft": "draft_model",
    "speculative_model": "draft_model",
    "assistant_model": "draft_model",
    "spec_type": "speculative",
    "draft_max": "num_draft_tokens",
    "n_draft": "num_draft_tokens",
    "num_speculative_tokens": "num_draft_tokens",
    "enable_prefix_caching": "prefix_cache",
    "prompt_cache": "prefix_cache_dir",
    "slot_save_path": "prefix_cache_dir",
}


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Checked arguments of `load`. None stands for "auto". `model` may be a name, which `load_model` looks up."""

    model: str | Path
    ctx: int | None
    threads: int | None
    kv: KvType
    pin: bool
    numa: bool
    backend: str
    batch_tokens: int
    chat_template: str | None
    quant: str | None = None
    activations: ActivationType = "int8"
    fast: bool = False
    task: Task = "auto"
    lora: tuple[ScaledPath, ...] = ()
    lazy: LazyWeights = "off"
    memory: int | None = None
    speculative: SpeculativeSettings = field(default_factory=SpeculativeSettings)
    pacing: float | None = DEFAULT_SLOWDOWN
    trace: Path | None = None
    prefix_cache: PrefixCacheSettings = field(default_factory=PrefixCacheSettings)


def load_settings(
    model: str | os.PathLike[str] | None,
    named: Mapping[str, Any],
    aliases: Mapping[str, Any],
    chat_template: str | None,
) -> LoadSettings:
    """Checks the arguments of `load`.

    Args:
        model: as given.
        named: arguments under our names, defaults included.
        aliases: arguments under other names.

    Raises:
        TypeError: an unknown name.
        InvalidRequestError: a value out of range.
        ModelNotFoundError: no model is named and the built-in one is not installed.
    """
    renamed = resolve_keywords("load", aliases, ("model", *named), _ALIASES)
    if "model" in renamed:
        if model is not None:
            raise TypeError("load got 'model' twice (once as 'model_path')")
        model = renamed.pop("model")
    values = {**named, **renamed}
    if values["backend"] not in backend_names():
        names = ", ".join(backend_names())
        raise InvalidRequestError(f"backend must be one of {names}, got {values['backend']!r}")
    if chat_template is not None and not isinstance(chat_template, str):
        raise InvalidRequestError(
            f"chat_template must be Jinja source or the name of a style (a str), got {chat_template!r}"
        )
    lazy = lazy_weights(values.get("lazy", False), values.get("quant"), values["backend"])
    return LoadSettings(
        model=_model_path(model),
        ctx=whole_number("ctx", values["ctx"], 2, 2**31 - 1, auto=True),
        threads=whole_number("threads", values["threads"], 1, MAX_THREADS, auto=True),
        kv=kv_type_name(*split_kv_type(values["kv"])),
        pin=flag("pin", values.get("pin", False)),
        numa=flag("numa", values.get("numa", False)),
        backend=values["backend"],
        batch_tokens=whole_number("batch_tokens", values["batch_tokens"], 1, MAX_BATCH_TOKENS) or 0,
        chat_template=_template_source(chat_template),
        quant=_recipe_name(values.get("quant")),
        activations=activation_type(values.get("activations", "int8")),
        fast=flag("fast", values.get("fast", False)),
        task=task_name(values.get("task", "auto")),
        lora=scaled_paths(values.get("lora")),
        lazy=lazy,
        memory=memory_bytes(values.get("memory")),
        speculative=speculative_settings(values),
        pacing=slowdown(values.get("pacing", DEFAULT_SLOWDOWN)),
        trace=trace_path(values.get("trace")),
        prefix_cache=prefix_cache_settings(values),
    )


def load_model(settings: LoadSettings, progress: Progress | None = None) -> LoadedModel:
    """Opens, checks and compiles a model, and a second one that drafts for it where one is named.

    An error or an interrupt on the way frees what was taken.
    """
    folder = open_folder(settings.prefix_cache)
    loaded = _load_one(settings, progress)
    try:
        loaded = replace(loaded, draft=load_draft_model(settings, loaded, progress))
        loaded = replace(loaded, speculation=build_speculation(settings.speculative, loaded))
        store = None if folder is None else open_page_store(folder, loaded, settings.quant, settings.lora)
        return replace(
            loaded,
            has_prefix_cache=settings.prefix_cache.is_on and can_share_pages(loaded.plan),
            page_store=store,
        )
    except BaseException:
        loaded.close()
        raise


def _load_one(settings: LoadSettings, progress: Progress | None = None) -> LoadedModel:
    source = open_source(local_path(settings.model, progress))
    try:
        if settings.quant is not None:
            source = _quantized(source, settings)
        tokenizer = tokenizer_of(source)
        choice = _choice(tokenizer) if settings.task == "rerank" else None
        plan, config = record_plan(source, settings.ctx, task=settings.task, choice=choice)
        if plan.num_positions is not None and (settings.ctx or 0) > plan.num_positions:
            raise InvalidRequestError(
                f"ctx is {settings.ctx}, but {source.path} has embeddings of {plan.num_positions} positions"
            )
        adapters = bind_adapters(plan, source, settings.lora)
        weights: WeightSource = AdaptedSource(source, adapters) if settings.lora else source
        defaults = SamplingParams.from_metadata(source.metadata)
        backend = cast(Backend, import_module(f"{backends.__name__}.{settings.backend}"))
        num_threads = settings.threads or _useful_threads(source)
        fitted = fit(
            backend,
            adapted_plan(plan, adapters),
            weights,
            ctx=settings.ctx,
            trained_context_length=config.context_length,
            batch_tokens=settings.batch_tokens,
            num_threads=num_threads,
            kv=settings.kv,
            cpus=thread_cpus(num_threads, pin=settings.pin, numa=settings.numa),
            activations=settings.activations,
            fast=settings.fast,
            lazy=settings.lazy,
            memory=settings.memory,
        )
        # As it is loaded, now that this is known:
        plan, config = record_plan(source, fitted.context_length, task=settings.task, choice=choice)
        if fitted.context_length > config.context_length:
            _log.warning(
                "ctx=%d is more than the %d tokens that %s was trained for; long texts may become worse",
                fitted.context_length,
                config.context_length,
                source.path,
            )
        plan = adapted_plan(plan, adapters)
        executor = backend.compile(plan, weights, fitted.options, progress)
        lazy = measure_file_speed(executor) if settings.lazy != "off" else None
    except BaseException:
        source.close()
        raise
    return LoadedModel(
        source=source,
        plan=plan,
        config=config,
        tokenizer=tokenizer,
        executor=executor,
        backend=settings.backend,
        context_length=fitted.context_length,
        chat_template=settings.chat_template,
        defaults=defaults,
        pacing=None if settings.pacing is None else StepPacing(settings.pacing),
        adapters=adapters.descriptions,
        lazy=lazy,
    )


def backend_names() -> list[str]:
    """Backends that this installation has: the folders of `torchless/backends`."""
    return sorted(module.name for module in pkgutil.iter_modules(backends.__path__) if module.ispkg)


def _model_path(model: str | os.PathLike[str] | None) -> str | Path:
    if isinstance(model, str) and parse_name(model) is not None:
        return model
    if model is not None:
        try:
            return Path(model)
        except TypeError:
            raise InvalidRequestError(f"model must be a path, got {model!r}") from None
    if not BUILT_IN_MODEL.exists():
        raise ModelNotFoundError(
            f"no model was named and this installation lacks the built-in one ({BUILT_IN_MODEL}); "
            f"name a GGUF file or a Hugging Face folder, or install torchless again"
        )
    return BUILT_IN_MODEL


def _choice(tokenizer: Tokenizer) -> tuple[int, int] | None:
    """Ids of the tokens between which a decoder chooses when it judges."""
    no, yes = (tokenizer.token_to_id(text) for text in ("no", "yes"))
    return None if no is None or yes is None else (no, yes)


def _template_source(chat_template: str | None) -> str | None:
    """Jinja source as it is, or that of a style that is named."""
    return template_source(chat_template) if chat_template in template_names() else chat_template


def _recipe_name(quant: Any) -> str | None:
    """The name of a recipe, checked."""
    if quant is None:
        return None
    from torchless.quantization.recipes import find_recipe

    if not isinstance(quant, str):
        raise InvalidRequestError(f"quant must be the name of a recipe such as 'Q4_K_M', got {quant!r}")
    return find_recipe(quant).name


def _quantized(source: WeightSource, settings: LoadSettings) -> WeightSource:
    """The model with its weights quantised by `settings.quant` as they are read."""
    from torchless.quantization.at_load import QuantizedSource
    from torchless.quantization.recipes import find_recipe

    assert settings.quant is not None
    return QuantizedSource(source, find_recipe(settings.quant), settings.threads or usable_cores())


def _useful_threads(source: WeightSource) -> int:
    """All usable cores, but one for each few megabytes of weights: threads that have only microseconds of work
    between two meetings wait for each other longer than they compute."""
    num_bytes = sum(tensor.num_bytes for tensor in source.tensors.values())
    return min(usable_cores(), 1 + num_bytes // _BYTES_PER_THREAD)


def tokenizer_of(source: WeightSource) -> Tokenizer:
    """The tokenizer that comes with a model file or folder. Raises TokenizerError."""
    if source.format == "safetensors":
        return Tokenizer.from_folder(source.path if source.path.is_dir() else source.path.parent)
    return Tokenizer.from_metadata(source.metadata)
