"""Fixtures of the screen's tests: textual without a terminal, steered by its pilot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cli_fakes import FakeLLM

pytest.importorskip("textual", reason="textual is not installed")

from torchless.chat.conversation import Conversation
from torchless.chat.local import LocalPartner
from torchless.tui.app import ChatApp
from torchless.tui.history import History

_PATIENCE_SECONDS = 15.0


class Screen:
    """A chat's screen and its pilot."""

    def __init__(self, app: ChatApp, pilot: Any) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def llm(self) -> FakeLLM:
        return self.app.chat.partner.llm  # type: ignore[attr-defined]

    @property
    def text(self) -> str:
        """All that the screen shows, line by line."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    @property
    def typed(self) -> str:
        """What stands in the field."""
        return self.app.query_one("#prompt").text  # type: ignore[attr-defined,no-any-return]

    async def type(self, text: str) -> None:
        """Types a text as it would be pasted, without Enter."""
        self.app.query_one("#prompt").insert(text)  # type: ignore[attr-defined]
        await self.pilot.pause()

    async def send(self, text: str) -> None:
        """Types a message, sends it, and waits until the chat has worked on it."""
        await self.type(text)
        await self.pilot.press("escape", "enter")
        await self.wait(lambda: not self.app.is_busy)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Waits until something is so."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, self.text
            await self.pilot.pause(0.02)
        await self.pilot.pause(0.06)


@pytest.fixture
def on_screen() -> Callable[..., None]:
    """Runs a test's coroutine with a `Screen`: answers of the fake model, then options of the chat."""

    def run(
        test: Callable[[Screen], Awaitable[None]],
        *answers: list[object],
        size: tuple[int, int] = (80, 40),
        history: History | None = None,
        **options: Any,
    ) -> None:
        async def with_screen() -> None:
            llm = FakeLLM(answers or (["one"],), has_template=True)
            app = ChatApp(
                LocalPartner(llm, "fake.gguf", {}),  # type: ignore[arg-type]
                Conversation(llm.defaults),
                history or History(None),
                **options,
            )
            async with app.run_test(size=size, notifications=True) as pilot:
                await test(Screen(app, pilot))

        asyncio.run(with_screen())

    return run
