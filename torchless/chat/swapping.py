"""One loaded model in another's place, so that there is always one: a new one that fails leaves the old one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torchless.chat.partners import Progress
from torchless.errors import InvalidRequestError, OutOfMemoryError, TemplateError, TorchlessError

if TYPE_CHECKING:
    from torchless.llm import LLM

__all__ = ["Swap", "require_template"]

_OF_ONE_MODEL = ("chat_template", "lora", "quant", "draft_model", "num_draft_tokens")
"""Keywords of `torchless.load` that were meant for one model and not for another."""
_DRAFTING = ("draft", "both")
_USUAL_CONTEXT_LENGTH = 4096
"""What `torchless.load` takes by itself where there is memory for it."""


def require_template(llm: LLM, keywords: Mapping[str, Any]) -> None:
    """Raises TemplateError for a model that nobody has told how to chat."""
    if keywords.get("chat_template") is None and llm.tokenizer.chat_template is None:
        raise TemplateError(
            f"{llm.info['path']} has no chat template, and none is guessed; give one with --chat-template NAME "
            f"or FILE, or continue plain text with 'torchless run'"
        )


class Swap:
    """Holds a model and puts others in its place.

    A new model is loaded beside the old one. If memory is too short for both, or the new one would get less of it than
    alone, the old one is closed first, and loaded again if the new one fails.

    Attributes:
        model: what is loaded, as `torchless.load` takes it.
        keywords: with which it was loaded.
    """

    def __init__(self, llm: LLM, model: str | None, keywords: dict[str, Any]) -> None:
        self._llm: LLM | None = llm
        self.model = model
        self.keywords = keywords

    @property
    def llm(self) -> LLM:
        """The model. Raises InvalidRequestError where none could be loaded again."""
        if self._llm is None:
            raise InvalidRequestError("no model is loaded; /model loads one")
        return self._llm

    def switch(self, model: str, progress: Progress) -> list[str]:
        """Loads another model, with the keywords that do not belong to one model alone.

        Returns:
            Sentences about what was left out.

        Raises:
            TorchlessError: it cannot be loaded, or has no chat template; the old one answers on.
        """
        keywords = {name: value for name, value in self.keywords.items() if name not in _OF_ONE_MODEL}
        if keywords.get("speculative") in _DRAFTING:  # by a model that drafted for the old one
            del keywords["speculative"]
        left_out = sorted(self.keywords.keys() - keywords.keys())
        return self._replace(model, keywords, progress, left_out)

    def reload(self, progress: Progress, **changes: Any) -> list[str]:
        """Loads the same model with some keywords changed; as `switch` otherwise."""
        return self._replace(self.model, {**self.keywords, **changes}, progress, [])

    def close(self) -> None:
        """Frees the model."""
        if self._llm is not None:
            self._llm.close()

    def _replace(
        self, model: str | None, keywords: dict[str, Any], progress: Progress, left_out: list[str]
    ) -> list[str]:
        if keywords.pop("trace", None) is not None:  # its file would be written from the start again
            left_out.append("trace")
        old = self._llm
        new = None if old is None or keywords.get("lazy") else self._load_beside(model, keywords, progress)
        if new is None:
            new = self._load_alone(model, keywords, progress)
        elif old is not None:
            old.close()
        self._llm, self.model, self.keywords = new, model, keywords
        flags = ", ".join("--" + name.replace("_", "-") for name in left_out)
        return [f"Left out, since it was meant for the model before: {flags}."] if flags else []

    def _load_beside(self, model: str | None, keywords: dict[str, Any], progress: Progress) -> LLM | None:
        """The model, or None where it should be loaded without the old one."""
        try:
            new = _load(model, keywords, progress)
        except OutOfMemoryError:
            return None
        alone = min(int(new.info.get("trained_context_length") or 0), _USUAL_CONTEXT_LENGTH)
        if keywords.get("ctx", "auto") == "auto" and new.context_length < alone:
            new.close()
            return None
        return new

    def _load_alone(self, model: str | None, keywords: dict[str, Any], progress: Progress) -> LLM:
        if self._llm is None:
            return _load(model, keywords, progress)
        self._llm.close()
        self._llm = None
        try:
            return _load(model, keywords, progress)
        except BaseException as error:
            again = {name: value for name, value in self.keywords.items() if name != "trace"}
            try:
                self._llm = _load(self.model, again, progress)
            except TorchlessError as second:
                raise TorchlessError(
                    f"{error}. The model before could not be loaded again either: {second}"
                ) from error
            raise


def _load(model: str | None, keywords: Mapping[str, Any], progress: Progress) -> LLM:
    import torchless

    llm = torchless.load(model, progress=progress, **keywords)
    try:
        require_template(llm, keywords)
    except BaseException:
        llm.close()
        raise
    return llm
