"""The models of a server: loaded when they are asked for, shared by all requests, unloaded when they must or may go."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torchless.errors import InvalidRequestError, OutOfMemoryError
from torchless.lazy_weights import memory_bytes
from torchless.llm import LLM, load
from torchless.server.errors import ApiError
from torchless.server.settings import ModelSpec, ServerSettings

__all__ = ["Lease", "ModelPool"]

_log = logging.getLogger("torchless.server")


@dataclass
class _Entry:
    """A model for one task. Touched by the event loop's thread alone.

    Attributes:
        task: what it is loaded for; "auto" is what it was made for.
        llm: None while it is not loaded.
        is_ours: it was loaded here, and so is closed here.
        loading: the load that is under way.
        num_leases: requests that use it.
        used_at: clock of the last request's end, in seconds.
        expiry: unloads it after its keep-alive time.
    """

    spec: ModelSpec
    task: str
    llm: LLM | None = None
    is_ours: bool = True
    loading: asyncio.Task[LLM] | None = None
    num_leases: int = 0
    used_at: float = field(default_factory=time.monotonic)
    expires_at: float | None = None
    expiry: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        return self.llm is not None and self.is_ours and not self.num_leases and self.loading is None


class Lease:
    """A model in use: it stays loaded until `release`, which may be called again."""

    def __init__(self, pool: ModelPool, entry: _Entry, llm: LLM) -> None:
        self._pool = pool
        self._entry: _Entry | None = entry
        self.llm = llm
        self.name = entry.spec.name
        self.keep_alive_seconds = pool.settings.keep_alive_seconds

    def release(self) -> None:
        """Lets the model go."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._pool.released(entry, self.keep_alive_seconds)


class ModelPool:
    """The models of a server.

    Args:
        models: what is served; a loaded model is used as it is and never closed here.
        settings: limits and times.
    """

    def __init__(self, models: Iterable[ModelSpec | tuple[str, LLM]], settings: ServerSettings) -> None:
        self.settings = settings
        self.created_at = int(time.time())
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._specs: dict[str, ModelSpec] = {}
        self._is_closed = False
        self._making_room = asyncio.Lock()
        self._unloading: set[asyncio.Task[None]] = set()
        for model in models:
            spec = model if isinstance(model, ModelSpec) else ModelSpec(model[0])
            if spec.name in self._specs:
                raise InvalidRequestError(
                    f"two models are called {spec.name!r}; give one of them another name (NAME=MODEL)"
                )
            self._specs[spec.name] = spec
            entry = self._entries[spec.name, "auto"] = _Entry(spec, "auto")
            if not isinstance(model, ModelSpec):
                entry.llm, entry.is_ours = model[1], False
        if not self._specs:
            raise InvalidRequestError("a server needs a model, and got none")

    def adopt(self, name: str, llm: LLM) -> None:
        """Takes over a model that was loaded elsewhere: from now on it may be unloaded here."""
        entry = self._entries[name, "auto"]
        entry.llm, entry.is_ours = llm, True

    @property
    def names(self) -> list[str]:
        """Names of all models, the default one first."""
        return list(self._specs)

    def spec(self, name: str | None) -> ModelSpec:
        """A model by name; None is the first one.

        Raises:
            ApiError: there is no such model (404).
        """
        if name is None:
            return next(iter(self._specs.values()))
        found = self._specs.get(name) or self._specs.get(name.removesuffix(":latest"))
        if found is None:
            known = ", ".join(self._specs)
            message = f"the model {name!r:.200} is not served here; there is {known}"
            raise ApiError(404, message, code="model_not_found", param="model")
        return found

    def loaded(self) -> list[tuple[str, str, LLM]]:
        """Name, task and model of all that are loaded now."""
        return [(key[0], key[1], entry.llm) for key, entry in self._entries.items() if entry.llm is not None]

    def describe(self, name: str) -> Mapping[str, Any]:
        """What a model does now: whether it is loaded, for which tasks, requests, seconds until it is unloaded."""
        entries = [entry for key, entry in self._entries.items() if key[0] == name]
        times = [entry.expires_at for entry in entries if entry.expires_at is not None]
        return {
            "is_loaded": any(entry.llm is not None for entry in entries),
            "num_requests": sum(entry.num_leases for entry in entries),
            "expires_in_seconds": max(0.0, min(times) - time.monotonic()) if times else None,
        }

    async def lease(self, name: str | None, task: str = "auto") -> Lease:
        """A model to use, loaded if need be.

        Args:
            task: "auto" is what the model was made for; "embed" and "rerank" load it a second time where it was made
                for something else.

        Raises:
            ApiError: there is no such model (404), too many requests are under way (429), or the server ends (503).
            TorchlessError: the model cannot be loaded.
        """
        entry = self._entry(self.spec(name), task)
        if self._is_closed:
            raise ApiError(
                503, "the server is about to end", code="shutting_down", headers={"Retry-After": "5"}
            )
        if entry.num_leases >= self.settings.max_requests:
            message = f"{entry.num_leases} requests of this model are under way, which is the limit (--max-requests)"
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})
        entry.num_leases += 1
        self._stop_expiry(entry)
        try:
            llm = entry.llm if entry.llm is not None else await self._loaded(entry)
        except BaseException:
            self.released(entry, None)
            raise
        return Lease(self, entry, llm)

    def released(self, entry: _Entry, keep_alive_seconds: float | None) -> None:
        """Counts a request less; the last one starts the clock of the model's keep-alive time."""
        entry.num_leases -= 1
        entry.used_at = time.monotonic()
        if entry.num_leases or keep_alive_seconds is None or not entry.is_ours:
            return
        self._stop_expiry(entry)
        entry.expires_at = entry.used_at + keep_alive_seconds
        loop = asyncio.get_running_loop()
        entry.expiry = loop.call_later(keep_alive_seconds, self._expire, entry)

    async def close(self) -> None:
        """Closes all models that were loaded here. Requests under way fail."""
        self._is_closed = True
        for entry in self._entries.values():
            self._stop_expiry(entry)
            if entry.loading is not None:
                await asyncio.wait([entry.loading])
            if entry.is_ours:
                await self._unload(entry)
        await asyncio.gather(*self._unloading)

    def _entry(self, spec: ModelSpec, task: str) -> _Entry:
        """A model for a task: one that was loaded for it, or is as it was made."""
        usual = self._entries[spec.name, "auto"]
        kinds = {"embed": "states", "rerank": "scores"}
        if usual.llm is not None and task in kinds and usual.llm.plan.output_kind == kinds[task]:
            return usual
        if task == "auto" or not usual.is_ours or spec.options.get("task", "auto") != "auto":
            return usual
        return self._entries.setdefault((spec.name, task), _Entry(spec, task))

    async def _loaded(self, entry: _Entry) -> LLM:
        """Waits for the load that is under way, or starts one. Who gives up waiting does not end it for others."""
        if entry.loading is None:
            entry.loading = asyncio.create_task(self._load(entry))
            entry.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(entry.loading)

    async def _load(self, entry: _Entry) -> LLM:
        """Loads a model, and unloads idle ones until it fits."""
        spec, budget = entry.spec, self.settings.memory_bytes
        options = {**spec.options, **({} if entry.task == "auto" else {"task": entry.task})}
        try:
            async with self._making_room:
                while True:
                    if budget is not None:
                        left = budget - self._used_bytes()
                        own = memory_bytes(spec.options.get("memory"))
                        options["memory"] = max(1, left if own is None else min(left, own))
                    try:
                        entry.llm = await asyncio.to_thread(load, spec.path, **options)
                        break
                    except OutOfMemoryError:
                        if not await self._unload_oldest():
                            raise
            _log.info("loaded", extra={"model": spec.name, "task": entry.task})
            return entry.llm
        finally:
            entry.loading = None

    def _used_bytes(self) -> int:
        return sum(sum(llm.info["memory_bytes"].values()) for _, _, llm in self.loaded())

    async def _unload_oldest(self) -> bool:
        """Unloads the idle model that was used least recently; False where there is none."""
        idle = [entry for entry in self._entries.values() if entry.is_idle]
        if not idle:
            return False
        await self._unload(min(idle, key=lambda entry: entry.used_at))
        return True

    def _expire(self, entry: _Entry) -> None:
        entry.expiry, entry.expires_at = None, None
        if entry.is_idle:
            task = asyncio.get_running_loop().create_task(self._unload(entry))
            self._unloading.add(task)
            task.add_done_callback(self._unloading.discard)

    async def _unload(self, entry: _Entry) -> None:
        llm, entry.llm = entry.llm, None
        self._stop_expiry(entry)
        if llm is not None:
            await asyncio.to_thread(llm.close)
            _log.info("unloaded", extra={"model": entry.spec.name, "task": entry.task})

    @staticmethod
    def _stop_expiry(entry: _Entry) -> None:
        if entry.expiry is not None:
            entry.expiry.cancel()
        entry.expiry, entry.expires_at = None, None
