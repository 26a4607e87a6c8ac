"""Chat templates: messages in, the prompt that the model was trained on out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from torchless.errors import TemplateError

if TYPE_CHECKING:
    from jinja2 import Template

    from torchless.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate"]

_MAX_SOURCE_CHARACTERS = 1 << 22
_EXPECTED = 'expected a list like [{"role": "user", "content": "Hello"}]'


class ChatTemplate:
    """A compiled chat template, rendered as Hugging Face's ``apply_chat_template`` does.

    Rendering runs in a sandbox with limits on time and size, since templates come with files from strangers.
    Safe to use from several threads.

    Attributes:
        source: the template's text; with a template for tools, that one's behind it.
        literals: the strings that its expressions name, with which it compares what it is given.
        now: the clock behind ``strftime_now``.

    Example:
        >>> source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        >>> template = ChatTemplate(source, eos_token="</s>")
        >>> template.render([{"role": "user", "content": "Hello"}])
        '<user>Hello</s>'
    """

    def __init__(
        self,
        source: str | None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        *,
        tool_source: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Compiles a template.

        Args:
            source: the template's text.
            bos_token, eos_token: texts of these tokens, known to the template by these names.
            tool_source: another template for conversations with tools, where the model has one.
            special_tokens: more texts by name (``{"pad_token": "<pad>"}``).
            now: the clock behind ``strftime_now``.

        Raises:
            TemplateError: there is no template, or it is not valid; names the line.
        """
        from torchless.text.template_sandbox import TemplateEnvironment

        if source is None:
            raise TemplateError(
                "the model has no chat template, and torchless does not guess one: give it one "
                "(chat_template=..., --chat-template FILE), or continue plain text with generate"
            )
        environment = TemplateEnvironment(now)
        self.now = now
        self._template = _compile(environment, source)
        self._tool_template = None if tool_source is None else _compile(environment, tool_source)
        self.source = source + (tool_source or "")
        self.literals = _literals(environment, source, tool_source)
        tokens = {"bos_token": bos_token, "eos_token": eos_token, **(special_tokens or {})}
        self._tokens = {name: text for name, text in tokens.items() if text is not None}

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, name: str = "default") -> ChatTemplate:
        """The model's own template.

        Raises:
            TemplateError: the model has no template of this name, or it is not valid.
        """
        templates = tokenizer.chat_templates
        if templates and name not in templates:
            raise TemplateError(
                f"the model has no chat template {name!r}, only {', '.join(sorted(templates))}"
            )
        tool_source = templates.get("tool_use") if name == "default" else None
        return cls(templates.get(name), tokenizer.bos_token, tokenizer.eos_token, tool_source=tool_source)

    def render(
        self,
        /,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> str:
        """The prompt for a conversation.

        Args:
            messages: each with a ``role`` and, mostly, a ``content``: a string or a list of parts.
            tools: JSON schemas of functions that the model may call.
            add_generation_prompt: end with the start of the model's answer.
            documents: texts for the model to refer to.
            kwargs: further values that the template knows (``enable_thinking=False``).

        Raises:
            TemplateError: the messages are malformed, or the template refuses them, fails, or was stopped.
        """
        from torchless.text.template_sandbox import BUDGET_NAME, RenderBudget

        budget = RenderBudget()
        values = {
            **self._tokens,
            "messages": _checked(messages),
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            **kwargs,
            BUDGET_NAME: budget,
        }
        template = self._tool_template if tools and self._tool_template is not None else self._template
        parts: list[str] = []
        try:
            for part in template.generate(values):
                budget._spend_text(part)
                parts.append(part)
        except Exception as error:
            raise _explained(error) from error
        return "".join(parts)


def _compile(environment: Any, source: str) -> Template:
    if not isinstance(source, str):
        raise TemplateError(f"a chat template is a string, found {type(source).__name__}")
    if len(source) > _MAX_SOURCE_CHARACTERS:
        raise TemplateError(
            f"the chat template has {len(source)} characters, more than {_MAX_SOURCE_CHARACTERS}"
        )
    try:
        template: Template = environment.from_string(source)
    except Exception as error:  # Besides syntax errors: too deep nesting, a constant that cannot be computed.
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        raise TemplateError(
            f"the chat template is not valid{where}: {error or type(error).__name__}"
        ) from error
    return template


def _literals(environment: Any, *sources: str | None) -> frozenset[str]:
    """All strings in the expressions of templates that compile."""
    from jinja2 import nodes

    trees = [environment.parse(source) for source in sources if source is not None]
    values = [node.value for tree in trees for node in tree.find_all(nodes.Const)]
    return frozenset(value for value in values if isinstance(value, str))


def _checked(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise TemplateError(f"messages is {type(messages).__name__}, {_EXPECTED}")
    if not messages:
        raise TemplateError(f"there are no messages, {_EXPECTED}")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TemplateError(f"messages[{index}] is {type(message).__name__}, {_EXPECTED}")
        if not isinstance(message.get("role"), str):
            raise TemplateError(
                f"messages[{index}] has the role {message.get('role')!r}, expected a string such as 'user'"
            )
        content = message.get("content")
        if not (content is None or isinstance(content, str | list)):
            raise TemplateError(
                f"messages[{index}] has content of type {type(content).__name__}, expected a string, a list "
                f"of parts, or None"
            )
    return list(messages)


def _explained(error: Exception) -> TemplateError:
    """Says what a failed rendering means, and in which line of the template it failed."""
    from jinja2.exceptions import SecurityError, UndefinedError
    from jinja2.exceptions import TemplateError as JinjaError

    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            line = trace.tb_lineno
        trace = trace.tb_next
    where = "" if line is None else f" (line {line})"
    if isinstance(error, SecurityError):
        return TemplateError(f"the chat template was stopped by its sandbox{where}: {error}")
    if isinstance(error, JinjaError) and not isinstance(error, UndefinedError):
        return TemplateError(f"the chat template refused the messages{where}: {error}")
    if isinstance(error, RecursionError):
        return TemplateError(f"the chat template calls itself without end{where}")
    return TemplateError(f"the chat template failed{where}: {type(error).__name__}: {error}")
