"""``torchless chat``: a conversation with a model that has a chat template."""

from __future__ import annotations

from typing import Any

import click

from torchless.cli.constraint_options import CONSTRAINT_OPTIONS, constraint_keywords
from torchless.cli.interrupts import SignalWatch
from torchless.cli.loading import LoadProgress, load_for_verb
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prefix_cache_options import PREFIX_CACHE_OPTIONS
from torchless.cli.prompt import one_model
from torchless.cli.sampling_options import SAMPLING_OPTIONS, sampling_keywords
from torchless.cli.speculative_options import SPECULATIVE_OPTIONS
from torchless.errors import TemplateError

__all__ = ["command"]

_HELP = """Talk with a model that has a chat template: a GGUF file, a Hugging Face folder, or the built-in model.

The whole conversation is sent with every question. /help lists the commands; \"\"\" begins and ends a message
of several lines; Ctrl-C stops an answer; Ctrl-D leaves. Where standard input is not a terminal, each line
is a question and stdout gets the answers only.
"""

_CHAT_OPTIONS = (Option("--system", heading="Conversation", metavar="TEXT", help="A system message."),)


@click.command("chat", cls=Verb, help=_HELP, short_help="Talk with a model.")
@with_options(
    [words_argument("[MODEL]")],
    _CHAT_OPTIONS,
    SAMPLING_OPTIONS,
    CONSTRAINT_OPTIONS,
    LOAD_OPTIONS,
    SPECULATIVE_OPTIONS,
    PREFIX_CACHE_OPTIONS,
)
def command(words: tuple[str, ...], model: str | None, system: str | None, **values: Any) -> None:
    from torchless.cli.chat_session import ChatSession
    from torchless.cli.conversation import Conversation

    sampling = sampling_keywords(values)
    constraint = constraint_keywords(values)
    load = load_keywords(values)
    named = one_model(words, model)
    progress = LoadProgress(named)
    with SignalWatch(progress.abandon) as watch, load_for_verb(named, load, progress) as llm:
        if "chat_template" not in load and llm.tokenizer.chat_template is None:
            raise TemplateError(
                f"{llm.info['path']} has no chat template, and none is guessed; give one with --chat-template FILE, "
                f"or continue plain text with 'torchless run'"
            )
        with watch.suspended():
            talk = Conversation(llm.defaults.updated(**sampling), system)
            is_flawless = ChatSession(llm, talk, constraint).run()
    if not is_flawless:
        click.get_current_context().exit(1)
