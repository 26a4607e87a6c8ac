"""`torchless chat --url` with torchless's own server: the same bits as with the model itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from servers import running
from slow_steps import slow_steps

import torchless
from torchless.chat.chat import Chat
from torchless.chat.conversation import Conversation
from torchless.chat.remote import RemotePartner
from torchless.errors import TorchlessError
from torchless.server import ServerSettings

sys.path.append(str(Path(__file__).resolve().parent.parent / "chat"))

from chat_fakes import RecordingView


@pytest.fixture
def chat(server, tmp_path):
    partner = RemotePartner(server.url)
    yield Chat(partner, Conversation(partner.defaults), RecordingView(), folder=tmp_path)
    partner.close()


def test_answers_have_the_bits_of_the_model_itself(chat, stories):
    for line in ("/set seed 7", "/max-tokens 20", "/temperature 0.9", "/system Be brief."):
        assert chat.take(line), chat.view.texts("error")
    for question in ("Tell me a story.", "And another."):
        assert chat.take(question), chat.view.texts("error")
    messages = [{"role": "system", "content": "Be brief."}]
    for turn in range(2):
        messages.append(chat.conversation.messages[2 * turn])
        answer = stories.chat(messages, seed=7, max_tokens=20, temperature=0.9)
        assert chat.conversation.messages[2 * turn + 1]["content"] == answer.text
        assert chat.view.reports[turn].num_completion_tokens == answer.usage.num_completion_tokens
        messages.append({"role": "assistant", "content": answer.text})
    assert chat.num_context_tokens == chat.view.reports[1].num_context_tokens > 0


def test_every_parameter_that_can_be_set_is_taken(chat):
    for line in (
        "/top-k 5",
        "/top-p 0.5",
        "/set min_p 0.1",
        "/set repeat_penalty 1.1",
        "/set stop END",
        "/set mirostat 2",
    ):
        assert chat.take(line)
    assert chat.take("/max-tokens 4") and chat.take("Hello"), chat.view.texts("error")


def test_a_conversation_that_does_not_fit_is_told_with_both_numbers(chat, stories):
    assert not chat.take("word " * 2 * stories.context_length)
    (error,) = chat.view.texts("error")
    assert str(stories.context_length) in error and error.endswith("start anew with /clear")


def test_stopping_frees_the_server(chat, stories):
    before = stories.metrics().num_cancelled
    piece = chat.view.piece
    chat.view.piece = lambda item: (piece(item), chat.stop())
    chat.take("/set ignore_eos on")
    with slow_steps(stories):
        assert chat.take("Tell me a long story.")
        for _ in range(200):
            if stories.metrics().num_cancelled > before:
                return
            threading.Event().wait(0.02)
    raise AssertionError("the request went on")


def test_the_key_is_needed_and_sent(stories):
    with running(stories, ServerSettings(api_keys=("secret",))) as server:
        with pytest.raises(TorchlessError, match=r"status 401.*give a key with --api-key"):
            RemotePartner(server.url)
        RemotePartner(server.url, api_key="secret").close()


def test_a_server_behind_a_socket_answers_a_chat_in_another_process(tmp_path, stories):
    """As typed: ``torchless serve --socket PATH`` and ``torchless chat --url unix:PATH``."""
    path = tmp_path / "torchless.sock"
    environment = {**os.environ, "PYTHONPATH": str(Path(torchless.__file__).parent.parent)}
    torchless_command = [sys.executable, "-m", "torchless"]
    serving = subprocess.Popen([*torchless_command, "serve", "--socket", str(path)], env=environment)
    try:
        for _ in range(1200):
            if path.exists() or serving.poll() is not None:
                break
            threading.Event().wait(0.05)
        options = ["--url", f"unix:{path}", "--seed", "3", "-n", "8", "--temp", "0.9"]
        done = subprocess.run(
            [*torchless_command, "chat", *options],
            input=b"Hello",
            capture_output=True,
            env=environment,
            timeout=60,
        )
    finally:
        serving.terminate()
        serving.wait(30)
    expected = stories.chat(
        [{"role": "user", "content": "Hello"}], seed=3, max_tokens=8, temperature=0.9
    ).text
    assert (done.returncode, done.stdout.decode().strip("\n")) == (0, expected.strip("\n")), (
        done.stderr.decode()
    )
