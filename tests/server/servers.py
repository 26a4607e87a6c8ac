"""A server of the tests: a real one, on a free port of this machine, in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from torchless.server.application import app
from torchless.server.impatience import ImpatientProtocol
from torchless.server.listening import Address, bound
from torchless.server.settings import ServerSettings


class Running:
    """A server that runs.

    Attributes:
        url: where it is.
        application: what it serves.
    """

    def __init__(self, url: str, application: Any) -> None:
        self.url = url
        self.application = application


@contextlib.contextmanager
def running(
    models: Any = None,
    settings: ServerSettings | None = None,
    *,
    http: Any = ImpatientProtocol,
    **options: Any,
) -> Iterator[Running]:
    """A server for these models, until the end of the block. `http` is the protocol of its connections."""
    application = app(models, settings, **options)
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets=None) -> None:
            await super().startup(sockets)
            started.set()

    with bound(Address(port=0)) as (listener, url):
        config = uvicorn.Config(application, log_config=None, access_log=False, ws="none", http=http)
        server = Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        assert started.wait(30), "the server did not start"
        try:
            yield Running(url, application)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not end"


def is_at_rest(llm: Any) -> bool:
    """Whether a model has nothing left to do, once its engine has obeyed."""
    return llm._runner.call(lambda engine: engine.scheduler.is_idle)


@contextlib.contextmanager
def paused(llm: Any) -> Iterator[None]:
    """Lets a model's engine stand still, so that its requests wait."""
    stands, may_go = threading.Event(), threading.Event()

    def wait(engine: Any) -> None:
        stands.set()
        may_go.wait(60)

    thread = threading.Thread(target=llm._runner.call, args=(wait,), daemon=True)
    thread.start()
    assert stands.wait(30), "the engine did not stop"
    try:
        yield
    finally:
        may_go.set()
        thread.join(30)
