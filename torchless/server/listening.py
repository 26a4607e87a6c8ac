"""Sockets that a server listens on, and the loop that serves them until a signal ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchless.errors import InvalidRequestError

__all__ = ["Address", "bound", "serve"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        host, port: of TCP; port 0 takes any that is free.
        socket_path: of a Unix socket instead, which only this user may open.
        certificate, key: files for TLS.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    socket_path: str | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def scheme(self) -> str:
        """Of its URL."""
        return "https" if self.certificate else "http"


@contextlib.contextmanager
def bound(address: Address) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens, and what clients call it. A Unix socket's file is removed at the end.

    Raises:
        OSError: the address is taken or is not this machine's.
        InvalidRequestError: there is something else at the path of a Unix socket.
    """
    if address.socket_path is not None:
        with _unix_socket(Path(address.socket_path)) as listener:
            yield listener, f"unix:{address.socket_path}"
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise OSError(
            getattr(error, "errno", 1) or 1,
            f"cannot listen there ({error}); choose another --host or --port",
            f"{address.host}:{address.port}",
        ) from None
    with listener:
        port = listener.getsockname()[1]
        host = f"[{address.host}]" if family == socket.AF_INET6 else address.host
        yield listener, f"{address.scheme}://{host}:{port}"


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InvalidRequestError(
                f"--socket {path}: there is a file that is no socket; choose another path"
            )
        if _is_alive(path):
            raise InvalidRequestError(f"--socket {path}: another server listens there")
        path.unlink()  # left by a process that ended without removing it
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise OSError(error.errno, f"cannot listen there ({error.strerror})", str(path)) from None
        finally:
            os.umask(before)
        try:
            listener.listen(1024)
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def serve(
    application: Any,
    listener: socket.socket,
    address: Address,
    *,
    drain_seconds: float = 30.0,
    started: Callable[[], object] = lambda: None,
) -> None:
    """Serves until SIGINT or SIGTERM: then no call is accepted any more, and those under way may end.

    Args:
        drain_seconds: how long they may take; then they are broken off.
        started: called once calls are answered.
    """
    import asyncio

    import uvicorn

    from torchless.server.impatience import ImpatientProtocol

    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        http=ImpatientProtocol,
        ws="none",
        h11_max_incomplete_event_size=64 << 10,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:  # uvicorn's own raises them again: here they end well
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    asyncio.run(Server(config).serve(sockets=[listener]))
