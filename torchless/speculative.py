"""Setting speculative decoding up for a model: arguments checked, the second model loaded, vocabularies compared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchless.arguments import whole_number
from torchless.engine.drafters import DrafterContext, build_drafter, drafter_names
from torchless.engine.speculation import MAX_DRAFT_TOKENS, Speculation
from torchless.errors import InvalidRequestError, ModelNotFoundError, UnsupportedError
from torchless.hub import local_path, parse_name
from torchless.models import record_plan
from torchless.prefix_cache_settings import PrefixCacheSettings
from torchless.speculative_kinds import SPECULATIVE
from torchless.weights.open import open_source

if TYPE_CHECKING:
    from torchless.backends.base import Progress
    from torchless.loaded_model import LoadedModel
    from torchless.loading import LoadSettings
    from torchless.text.tokenizer import Tokenizer

__all__ = ["SpeculativeSettings", "build_speculation", "load_draft_model", "speculative_settings"]

# Weights of a model that nothing is drafted for unless somebody asks: a step takes about a millisecond, of which merely
# watching for a chance took 4 to 9 % with the built-in model.
_TINY_BYTES = 64 << 20

BUILT_IN_DRAFT = Path(__file__).parent / "data" / "stories-draft.gguf"

_OTHER_NAMES = {"none": "off", "ngram": "prompt-lookup", "draft-model": "draft"}


@dataclass(frozen=True, slots=True)
class SpeculativeSettings:
    """Checked arguments of `load`.

    Attributes:
        kind: one of `SPECULATIVE`, or the name of a drafter.
        draft_model: path or name of the second model, None for none.
        num_tokens: tokens drafted for a sequence in each step; None lets the controller pick.
    """

    kind: str = "auto"
    draft_model: str | Path | None = None
    num_tokens: int | None = None

    @property
    def drafters(self) -> tuple[str, ...]:
        """Names of those who draft, the best first."""
        if self.kind not in SPECULATIVE:
            return (self.kind,)
        names = ["draft-model"] * (self.draft_model is not None and self.kind in ("auto", "draft", "both"))
        names += ["prompt-lookup"] * (self.kind in ("auto", "prompt-lookup", "both"))
        if self.kind == "auto":  # further ones that were dropped into the folder
            names += [name for name in drafter_names() if name not in ("draft-model", "prompt-lookup")]
        return tuple(names)


def speculative_settings(values: Mapping[str, Any]) -> SpeculativeSettings:
    """Checks `draft_model`, `speculative` and `num_draft_tokens`.

    Raises:
        InvalidRequestError: a value out of range, or a second model that is missing or would do nothing.
        ModelNotFoundError: the built-in draft model is not installed.
    """
    kind = values.get("speculative", "auto")
    kind = _OTHER_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    names = (*SPECULATIVE, *(name for name in drafter_names() if name not in ("draft-model", *SPECULATIVE)))
    if kind not in names:
        raise InvalidRequestError(f"speculative must be one of {', '.join(names)}, got {kind!r}")
    model = _draft_path(values.get("draft_model"))
    if model is None and kind in ("draft", "both"):
        raise InvalidRequestError(
            f"speculative={kind!r} needs a second model: name one with draft_model (--draft-model)"
        )
    if model is not None and kind not in ("auto", "draft", "both"):
        raise InvalidRequestError(
            f"draft_model names a second model, but with speculative={kind!r} nobody would ask it; leave one out"
        )
    number = whole_number(
        "num_draft_tokens", values.get("num_draft_tokens", "auto"), 1, MAX_DRAFT_TOKENS, auto=True
    )
    return SpeculativeSettings(kind, model, number)


def _draft_path(model: Any) -> str | Path | None:
    if model is None or isinstance(model, Path):
        return model
    if model in ("built-in", "builtin"):
        if not BUILT_IN_DRAFT.exists():
            raise ModelNotFoundError(f"this installation lacks the built-in draft model ({BUILT_IN_DRAFT})")
        return BUILT_IN_DRAFT
    if isinstance(model, str):
        return model if parse_name(model) is not None else Path(model)
    if isinstance(model, os.PathLike):
        return Path(os.fspath(model))
    raise InvalidRequestError(f"draft_model must be a path or a name, got {model!r}")


def load_draft_model(
    settings: LoadSettings, target: LoadedModel, progress: Progress | None = None
) -> LoadedModel | None:
    """The second model, if one is named, with as long a context as the first where it can.

    Raises:
        InvalidRequestError: it has another vocabulary; the message names the first difference.
        UnsupportedError: it, or the first model, cannot take tokens back.
    """
    from torchless.loading import load_model

    named = settings.speculative.draft_model
    if named is None:
        return None
    _check_can_take_back(target, "draft_model")
    path = local_path(named, progress)
    draft = load_model(
        replace(
            settings,
            model=path,
            ctx=min(target.context_length, _trained_context_length(path)),
            memory=None if settings.memory is None else max(settings.memory - _taken_bytes(target), 0),
            task="generate",
            lora=(),
            quant=None,
            lazy="off",
            fast=False,
            chat_template=None,
            speculative=SpeculativeSettings(kind="off"),
            prefix_cache=PrefixCacheSettings(is_on=False),
        ),
        progress,
    )
    try:
        _check_can_take_back(draft, "as a draft model")
        difference = first_difference(target.tokenizer, draft.tokenizer)
        if difference is not None:
            raise InvalidRequestError(
                f"{draft.source.path} cannot draft for {target.source.path}: {difference}; a draft model needs "
                f"the same vocabulary"
            )
    except BaseException:
        draft.close()
        raise
    return draft


def _trained_context_length(path: Path) -> int:
    source = open_source(path)
    try:
        return record_plan(source)[1].context_length
    finally:
        source.close()


def _taken_bytes(model: LoadedModel) -> int:
    """What a model takes at most, all pages of its cache in use."""
    taken = model.executor.memory_bytes()
    pages = taken.get("kv_page", 0) * model.executor.options.num_pages
    return taken.get("weights", 0) + taken.get("scratch", 0) + pages


def _check_can_take_back(model: LoadedModel, what: str) -> None:
    reason = _why_not(model)
    if reason is not None:
        raise UnsupportedError(f"{what}: {model.source.path} {reason}, so that nothing can be drafted")


def _why_not(model: LoadedModel) -> str | None:
    """Why a model cannot take back what was drafted, None if it can."""
    if model.plan.state_ops:
        return "keeps recurrent state, which cannot go back to an earlier token"
    if model.plan.needs_whole_sequences:
        return "reads whole sequences at once"
    if model.plan.output_kind != "logits":
        return "writes no text"
    return None


def _is_tiny(model: LoadedModel) -> bool:
    """Whether a step takes so little that looking for a guess is a cost worth mentioning."""
    return model.lazy is None and model.executor.memory_bytes()["weights"] < _TINY_BYTES


def first_difference(target: Tokenizer, draft: Tokenizer) -> str | None:
    """How two vocabularies differ, None if they do not. More tokens at the end of one are no difference."""
    kinds = target.describe()["kind"], draft.describe()["kind"]
    if kinds[0] != kinds[1]:
        return f"its tokenizer is of kind {kinds[1]}, not {kinds[0]}"
    common = min(target.vocab_size, draft.vocab_size)
    for index in range(common):
        ours, theirs = target.id_to_token(index), draft.id_to_token(index)
        if ours != theirs:
            return f"its token {index} is {theirs!r}, not {ours!r}"
    longer = max(target.vocab_size, draft.vocab_size)
    if longer - common > max(common // 100, 16):
        return f"it has {draft.vocab_size} tokens, not {target.vocab_size}"
    return None


def build_speculation(settings: SpeculativeSettings, model: LoadedModel) -> Speculation | None:
    """What drafts for a loaded model; None where nothing shall or can be drafted.

    Raises:
        UnsupportedError: it was asked for and is not possible.
    """
    if settings.kind == "off":
        return None
    reason = _why_not(model)
    if reason is not None:
        if settings.kind != "auto":
            raise UnsupportedError(f"speculative={settings.kind!r}: {model.source.path} {reason}")
        return None
    if settings == SpeculativeSettings() and _is_tiny(model):
        return None
    draft = model.draft
    num_ids = model.executor.vocab_size
    context = (
        DrafterContext(num_token_ids=num_ids)
        if draft is None
        else DrafterContext(draft.executor, draft.context_length, num_ids)
    )
    drafters = [build_drafter(name, context) for name in settings.drafters]
    return Speculation(
        drafters, settings.num_tokens or MAX_DRAFT_TOKENS, is_adaptive=settings.num_tokens is None
    )
