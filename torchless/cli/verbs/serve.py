"""``torchless serve``: models over HTTP."""

from __future__ import annotations

from typing import Any

import click

from torchless.cli.loading import LoadProgress, load_for_verb, show_log
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Verb, with_options, words_argument
from torchless.cli.prefix_cache_options import PREFIX_CACHE_OPTIONS
from torchless.cli.server_options import SERVER_OPTIONS, address_of, seconds_of, settings_of
from torchless.cli.speculative_options import SPECULATIVE_OPTIONS
from torchless.errors import UnsupportedError

__all__ = ["command"]

_HELP = """Serve models over HTTP, in the APIs of OpenAI and others (docs/server.md).

Each MODEL is a GGUF file, a Hugging Face folder, a name such as org/repo:Q4_K_M on the Hugging Face hub, or a URL;
NAME=MODEL says what clients call it. Without one the built-in model is served. The first is loaded at once,
the others when they are asked for.

Ctrl-C or SIGTERM ends the server once the requests under way have ended.
"""


@click.command("serve", cls=Verb, help=_HELP, short_help="Serve models over HTTP.")
@with_options(
    [words_argument("[[NAME=]MODEL]...")],
    SERVER_OPTIONS,
    LOAD_OPTIONS,
    SPECULATIVE_OPTIONS,
    PREFIX_CACHE_OPTIONS,
)
def command(words: tuple[str, ...], model: str | None, **values: Any) -> None:
    load = load_keywords(values)
    _require_libraries()
    settings, address = settings_of(values), address_of(values)
    drain_seconds = seconds_of("--drain", values.pop("drain"))

    from torchless.server.application import app
    from torchless.server.listening import bound, serve
    from torchless.server.logs import log_to
    from torchless.server.settings import ModelSpec

    named = [text for text in (model, *words) if text is not None]
    specs = [ModelSpec.parse(text, load) for text in named] or [ModelSpec.parse(None, load)]
    application = app(specs, settings)
    show_log()
    with bound(address) as (listener, url):
        first = specs[0]
        if not values["on_demand"]:
            llm = load_for_verb(first.path, load, LoadProgress(first.path))
            application.state.pool.adopt(first.name, llm)
        log = log_to(as_json=values["log_json"])
        serve(
            application,
            listener,
            address,
            drain_seconds=drain_seconds,
            started=lambda: log.info("listening", extra={"url": url}),
        )
        log.info("ended")


def _require_libraries() -> None:
    try:
        import msgspec  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f'the server needs a library that is not installed ({error.name}): pip install "torchless[server]"'
        ) from None
