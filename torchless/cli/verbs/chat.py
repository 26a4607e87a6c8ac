"""``torchless chat``: a conversation with a model that has a chat template, or with a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from torchless.cli.constraint_options import CONSTRAINT_OPTIONS, constraint_keywords
from torchless.cli.interrupts import SignalWatch
from torchless.cli.loading import LoadProgress, load_for_verb
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prefix_cache_options import PREFIX_CACHE_OPTIONS
from torchless.cli.prompt import one_model
from torchless.cli.sampling_options import SAMPLING_OPTIONS, sampling_keywords
from torchless.cli.speculative_options import SPECULATIVE_OPTIONS
from torchless.cli.terminal import is_terminal, note
from torchless.text.thinking import THINKING

if TYPE_CHECKING:
    from torchless.chat.partners import Partner

__all__ = ["command"]

_HELP = """Talk with a model that has a chat template: a GGUF file, a Hugging Face folder, or the built-in model; or,
with --url, with the model of a server that speaks OpenAI's protocol.

The whole conversation is sent with every question. /help lists the commands; @FILE in a question sends a file; Esc or
Ctrl-C stops an answer; Ctrl-D leaves. On a terminal this takes the whole screen (if textual is installed: pip install
'torchless[chat]'); with --plain it goes line by line, where \"\"\" begins and ends a message of several lines. Where
standard input is not a terminal, each line is a question and stdout gets the answers only.
"""

_CONVERSATION = "Conversation"
_CHAT_OPTIONS = (
    Option("--system", heading=_CONVERSATION, metavar="TEXT", help="A system message."),
    Option("--hide-thinking", is_flag=True, heading=_CONVERSATION, help="Do not show the model's reasoning."),
    Option(
        "--think",
        "thinking",
        type=click.Choice(THINKING, case_sensitive=False),
        heading=_CONVERSATION,
        aliases=("--reasoning-effort",),
        help="How much to think before answering, for models that can be asked.",
    ),
    Option(
        "--context-shift",
        is_flag=True,
        heading=_CONVERSATION,
        help="Leave out the oldest half once the conversation does not fit the context.  [an error]",
    ),
    Option("--plain", is_flag=True, heading=_CONVERSATION, help="Line by line, not on the whole screen."),
    Option(
        "--no-history",
        is_flag=True,
        heading=_CONVERSATION,
        help="Do not keep what was typed for the arrow keys of later chats.",
    ),
    Option(
        "--url",
        heading=_CONVERSATION,
        metavar="URL",
        help="Talk with a server, such as http://localhost:8080 or unix:PATH; MODEL is then one of its models.",
    ),
    Option(
        "--api-key",
        heading=_CONVERSATION,
        metavar="KEY",
        envvar="TORCHLESS_API_KEY",
        help="What the server wants to be shown. [TORCHLESS_API_KEY]",
    ),
)


_OF_SERVERS = tuple(str(option.name) for option in _CHAT_OPTIONS if option.name != "context_shift")


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
def command(
    words: tuple[str, ...],
    model: str | None,
    system: str | None,
    hide_thinking: bool,
    thinking: str | None,
    context_shift: bool,
    plain: bool,
    no_history: bool,
    url: str | None,
    api_key: str | None,
    **values: Any,
) -> None:
    from torchless.chat.conversation import Conversation

    sampling = sampling_keywords(values)
    constraint = constraint_keywords(values)
    if url is not None:
        _refuse_load_options()
    load = load_keywords(values)
    named = one_model(words, model)
    is_screen = not plain and _can_show_screen()
    with _partner(named, load, url, api_key) as (partner, watch):
        talk = Conversation(partner.defaults.updated(**sampling), system)
        options: dict[str, Any] = {"constraint": constraint, "shows_reasoning": not hide_thinking}
        options["thinking"] = thinking
        options["shifts_context"] = context_shift
        options["chosen"] = {name for name in sampling if hasattr(talk.params, name)}
        with watch.suspended():
            if is_screen:
                from torchless.tui.app import run_chat_screen

                is_flawless = run_chat_screen(partner, talk, keeps_history=not no_history, **options)
            else:
                from torchless.cli.chat_session import ChatSession

                is_flawless = ChatSession(partner, talk, **options).run()
    if not is_flawless:
        click.get_current_context().exit(1)


@contextmanager
def _partner(
    model: str | None, load: Mapping[str, Any], url: str | None, api_key: str | None
) -> Iterator[tuple[Partner, SignalWatch]]:
    """Who answers, and what watches for signals meanwhile."""
    if url is not None:
        from torchless.chat.remote import RemotePartner

        with SignalWatch(lambda: None) as watch:
            server = RemotePartner(url, model, api_key)
            try:
                yield server, watch
            finally:
                server.close()
        return
    from torchless.chat.local import LocalPartner
    from torchless.chat.swapping import require_template

    progress = LoadProgress(model)
    with SignalWatch(progress.abandon) as watch, load_for_verb(model, dict(load), progress) as llm:
        require_template(llm, load)
        partner = LocalPartner(llm, model, load)
        try:
            yield partner, watch
        finally:
            partner.close()  # another model than the first may have come


def _can_show_screen() -> bool:
    """Whether there is a screen to take; tells a person what is missing for one."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)) or os.environ.get("TERM") == "dumb":
        return False
    from importlib.util import find_spec

    if find_spec("textual") is None:
        note(
            "Line by line, since textual is not installed; for the whole screen: pip install 'torchless[chat]'."
        )
        return False
    return True


def _refuse_load_options() -> None:
    """A server loads its models itself; nothing that was asked for is passed over in silence."""
    context = click.get_current_context()
    given = [
        next(flag for flag in option.opts if flag.startswith("--"))
        for option in (*LOAD_OPTIONS, *SPECULATIVE_OPTIONS, *PREFIX_CACHE_OPTIONS, *_CHAT_OPTIONS)
        if option.name not in ("model", *_OF_SERVERS)
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(
            f"{', '.join(given)} has no meaning beside --url: a server loads its models itself"
        )
