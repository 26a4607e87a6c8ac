"""Fixtures of the chat's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_fakes import RecordingView
from cli_fakes import TEMPLATE, FakeLLM

from torchless.chat.chat import Chat
from torchless.chat.conversation import Conversation
from torchless.chat.local import LocalPartner


@pytest.fixture
def make_chat(tmp_path: Path) -> Callable[..., Chat]:
    """A chat with a fake model, in an empty folder: ``chat.partner.llm`` is the fake, ``chat.view`` notes all."""

    def make(*answers: list[object], template: str = TEMPLATE, **options: Any) -> Chat:
        llm = FakeLLM(answers or (["one"],), has_template=True, template=template)
        partner = LocalPartner(llm, "fake.gguf", {})  # type: ignore[arg-type]
        return Chat(partner, Conversation(llm.defaults), RecordingView(), folder=tmp_path, **options)

    return make
