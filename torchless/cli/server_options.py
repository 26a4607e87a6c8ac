"""Options of the server."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from torchless.cli.options import Option
from torchless.cli.prompt import read_text_file
from torchless.lazy_weights import memory_bytes
from torchless.server.listening import Address
from torchless.server.loopback import is_loopback
from torchless.server.settings import ServerSettings

__all__ = ["SERVER_OPTIONS", "address_of", "settings_of"]

_NETWORK, _ACCESS, _LIMITS, _LOG = "Network", "Access", "Models and limits", "Log"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

SERVER_OPTIONS = (
    Option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        heading=_NETWORK,
        metavar="ADDRESS",
        help="Listen there.",
    ),
    Option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8080,
        show_default=True,
        heading=_NETWORK,
        metavar="N",
        help="Listen on this port; 0 takes any that is free.",
    ),
    Option(
        "--socket",
        heading=_NETWORK,
        metavar="PATH",
        help="Listen on a Unix socket instead, which only you may open.",
    ),
    Option(
        "--tls-cert",
        heading=_NETWORK,
        metavar="FILE",
        aliases=("--ssl-cert-file", "--ssl-certfile"),
        help="Certificate, for HTTPS.",
    ),
    Option(
        "--tls-key",
        heading=_NETWORK,
        metavar="FILE",
        aliases=("--ssl-key-file", "--ssl-keyfile"),
        help="Its key.",
    ),
    Option(
        "--api-key",
        multiple=True,
        heading=_ACCESS,
        metavar="KEY",
        help="Ask every request for a key; may be given several times. Others see it in the list of processes: "
        "better in TORCHLESS_API_KEY, or --api-key-file.",
    ),
    Option("--api-key-file", heading=_ACCESS, metavar="FILE", help="Keys, one on each line."),
    Option(
        "--insecure",
        is_flag=True,
        heading=_ACCESS,
        help="Listen beyond this machine without a key: whoever reaches it may use it.",
    ),
    Option(
        "--cors-origin",
        multiple=True,
        heading=_ACCESS,
        metavar="ORIGIN",
        aliases=("--allowed-origins",),
        help="Let web pages of this origin ask, such as https://example.org; * is all.  [none]",
    ),
    Option(
        "--max-models-memory",
        heading=_LIMITS,
        metavar="SIZE",
        help="Keep no more than so much loaded, such as 8GiB; models not in use make room.  [what is left]",
    ),
    Option(
        "--keep-alive",
        heading=_LIMITS,
        metavar="TIME",
        help="Unload a model that nobody asked for so long, such as 5m.  [never]",
    ),
    Option(
        "--on-demand",
        is_flag=True,
        heading=_LIMITS,
        help="Load models when they are first asked for.  [the first one at once]",
    ),
    Option(
        "--max-requests",
        type=click.IntRange(1),
        default=128,
        show_default=True,
        heading=_LIMITS,
        metavar="N",
        aliases=("--max-queue",),
        help="Answer by 429 when so many requests of a model are under way or wait.",
    ),
    Option(
        "--max-body",
        default="16MiB",
        show_default=True,
        heading=_LIMITS,
        metavar="SIZE",
        help="Largest body of a request.",
    ),
    Option(
        "--drain",
        default="30s",
        show_default=True,
        heading=_LIMITS,
        metavar="TIME",
        help="Time that requests under way have to end after SIGTERM.",
    ),
    Option("--log-json", is_flag=True, heading=_LOG, help="Write the log as JSON, a line for each call."),
    Option("--log-prompts", is_flag=True, heading=_LOG, help="Write prompts and answers into the log, too."),
)


def settings_of(values: dict[str, Any]) -> ServerSettings:
    """Takes keys and limits out of `values`.

    Raises:
        click.UsageError: it would listen beyond this machine without a key.
        InvalidRequestError: a size or time that is none.
    """
    keys = [*values.pop("api_key")]
    if os.environ.get("TORCHLESS_API_KEY"):
        keys.append(os.environ["TORCHLESS_API_KEY"])
    key_file = values.pop("api_key_file")
    if key_file is not None:
        found = [line.strip() for line in read_text_file(key_file).splitlines() if line.strip()]
        if not found:
            raise click.UsageError(f"--api-key-file {key_file}: there is no key in it")
        keys += found
    is_local = values["socket"] is not None or is_loopback(values["host"])
    if not is_local and not keys and not values["insecure"]:
        raise click.UsageError(
            f"--host {values['host']} lets other machines in: set a key (TORCHLESS_API_KEY, --api-key-file), or say "
            f"--insecure to do without"
        )
    del values["insecure"]
    keep_alive = values.pop("keep_alive")
    body = memory_bytes(values.pop("max_body"))
    assert body is not None
    return ServerSettings(
        api_keys=tuple(keys),
        allowed_origins=tuple(values.pop("cors_origin")),
        local_only=values["socket"] is None and is_local and not keys,
        max_body_bytes=body,
        max_requests=values.pop("max_requests"),
        keep_alive_seconds=None if keep_alive is None else seconds_of("--keep-alive", keep_alive),
        memory_bytes=memory_bytes(values.pop("max_models_memory")),
        log_prompts=values.pop("log_prompts"),
    )


def address_of(values: dict[str, Any]) -> Address:
    """Takes where to listen out of `values`. Raises click.UsageError for half of a certificate."""
    certificate, key = values.pop("tls_cert"), values.pop("tls_key")
    if key is not None and certificate is None:
        raise click.UsageError("--tls-key: its certificate is missing (--tls-cert)")
    for flag, path in (("--tls-cert", certificate), ("--tls-key", key)):
        if path is not None and not os.path.isfile(path):  # noqa: PTH113
            raise click.UsageError(f"{flag} {path}: there is no such file")
    return Address(values.pop("host"), values.pop("port"), values.pop("socket"), certificate, key)


def seconds_of(flag: str, text: str) -> float:
    """A time such as ``30s``, ``5m`` or ``2h``, in seconds."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", text.strip().lower())
    if match is None:
        raise click.UsageError(f"{flag} {text}: expected a time such as 30s, 5m or 2h")
    return float(match[1]) * _SECONDS[match[2]]
