"""The models of a server: loaded when they are asked for, shared, and unloaded when they must or may go."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from test_llm import make

from torchless.errors import OutOfMemoryError
from torchless.server import pool as pool_module
from torchless.server.errors import ApiError
from torchless.server.pool import ModelPool
from torchless.server.settings import ModelSpec, ServerSettings

SPECS = [ModelSpec(name, f"{name}.gguf") for name in ("a", "b", "c")]


class Loader:
    """Loads fakes in place of `torchless.load`, and keeps what it made."""

    def __init__(self):
        self.made = {}
        self.calls = []
        self.room = 10  # models that fit into memory
        self.seconds = 0.0

    def __call__(self, path, **options):
        time.sleep(self.seconds)
        self.calls.append((path, options))
        open_ones = [model for model in self.made.values() if not model._runner.is_closed]
        if len(open_ones) >= self.room:
            raise OutOfMemoryError("no room")
        self.made[path] = model = make(says="abc")
        return model


@pytest.fixture
def loader(monkeypatch):
    loader = Loader()
    monkeypatch.setattr(pool_module, "load", loader)
    return loader


def run(work, specs=SPECS, **settings):
    """Runs `work(pool)` and closes the pool."""

    async def main():
        pool = ModelPool(specs, ServerSettings(**settings))
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(main())


def is_open(loader, name):
    return not loader.made[f"{name}.gguf"]._runner.is_closed


def test_a_model_is_loaded_once_however_many_ask(loader):
    loader.seconds = 0.05

    async def work(pool):
        leases = await asyncio.gather(*(pool.lease("a") for _ in range(8)))
        assert len({id(lease.llm) for lease in leases}) == 1
        assert [name for name, _, _ in pool.loaded()] == ["a"]

    run(work)
    assert [path for path, _ in loader.calls] == ["a.gguf"] and not is_open(loader, "a")


def test_who_gives_up_waiting_does_not_end_the_load_for_others(loader):
    loader.seconds = 0.1

    async def work(pool):
        first = asyncio.create_task(pool.lease("a"))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(pool.lease("a"))
        await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        (await second).release()
        assert pool.describe("a")["num_requests"] == 0

    run(work)
    assert len(loader.calls) == 1


def test_models_not_in_use_make_room_the_least_recent_first(loader):
    loader.room = 2

    async def work(pool):
        (await pool.lease("a")).release()
        held = await pool.lease("b")
        (await pool.lease("c")).release()  # instead of a
        assert not is_open(loader, "a") and is_open(loader, "b")
        held.release()
        (await pool.lease("a")).release()  # instead of c, though b was there first: it was used after
        assert is_open(loader, "a") and is_open(loader, "b") and not is_open(loader, "c")

    run(work)


def test_where_all_are_in_use_the_error_says_so(loader):
    loader.room = 1

    async def work(pool):
        held = await pool.lease("a")
        with pytest.raises(OutOfMemoryError):
            await pool.lease("b")
        assert pool.describe("b") == {"is_loaded": False, "num_requests": 0, "expires_in_seconds": None}
        held.release()
        (await pool.lease("b")).release()

    run(work)


def test_a_budget_goes_to_load_less_what_is_taken(loader):
    async def work(pool):
        (await pool.lease("a")).release()
        (await pool.lease("b")).release()

    run(work, memory_bytes=1 << 20)
    taken = sum(make().info["memory_bytes"].values())
    assert [options["memory"] for _, options in loader.calls] == [1 << 20, (1 << 20) - taken]


def test_a_model_goes_after_its_time_and_not_before(loader):
    async def work(pool):
        lease = await pool.lease("a")
        lease.release()
        again = await pool.lease("a")  # stops the clock
        await asyncio.sleep(0.3)
        assert is_open(loader, "a")
        again.release()
        assert 0 < pool.describe("a")["expires_in_seconds"] <= 0.1
        for _ in range(200):
            if not pool.loaded():
                break
            await asyncio.sleep(0.02)
        assert not pool.loaded()
        for _ in range(200):
            if not is_open(loader, "a"):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the model was not closed")

    run(work, keep_alive_seconds=0.1)


def test_a_model_for_another_task_is_loaded_beside(loader):
    async def work(pool):
        usual, other = await pool.lease("a"), await pool.lease("a", "embed")
        assert usual.llm is not other.llm
        assert {(name, task) for name, task, _ in pool.loaded()} == {("a", "auto"), ("a", "embed")}

    run(work)
    assert loader.calls[1][1]["task"] == "embed"


def test_names(loader):
    async def work(pool):
        assert (await pool.lease(None)).name == "a"
        assert (await pool.lease("b:latest")).name == "b"
        with pytest.raises(ApiError, match="there is a, b, c") as caught:
            await pool.lease("d")
        assert caught.value.status == 404

    run(work)


def test_no_more_than_so_many_requests(loader):
    async def work(pool):
        held = [await pool.lease("a") for _ in range(2)]
        with pytest.raises(ApiError, match="2 requests") as caught:
            await pool.lease("a")
        assert caught.value.status == 429 and "Retry-After" in caught.value.headers
        held[0].release()
        held[0].release()  # once more does nothing
        (await pool.lease("a")).release()
        assert pool.describe("a")["num_requests"] == 1

    run(work, max_requests=2)


def test_a_loaded_model_of_somebody_elses_stays_open():
    model = make(says="abc")

    async def work(pool):
        (await pool.lease("mine")).release()

    run(work, specs=[("mine", model)], keep_alive_seconds=0)
    assert not model._runner.is_closed
    model.close()


def test_a_closed_pool_says_that_the_server_ends(loader):
    async def work(pool):
        await pool.close()
        with pytest.raises(ApiError, match="about to end") as caught:
            await pool.lease("a")
        assert caught.value.status == 503

    run(work)
    assert threading.active_count() < 50
