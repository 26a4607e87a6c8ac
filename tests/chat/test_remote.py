"""A chat with a server over OpenAI's protocol, through real sockets."""

from __future__ import annotations

import threading
import time

import pytest
from chat_fakes import RecordingView
from openai_server import OpenAIServer, events

from torchless.chat.chat import Chat
from torchless.chat.conversation import Conversation
from torchless.chat.remote import RemotePartner, base_url
from torchless.errors import InvalidRequestError, TorchlessError, UnsupportedError

pytest.importorskip("httpx", reason="httpx is not installed")


@pytest.fixture
def server():
    server = OpenAIServer()
    yield server
    server.close()


@pytest.fixture
def make_chat(server, tmp_path):
    partners = []

    def make(model=None, api_key=None, **options) -> Chat:
        partner = RemotePartner(server.url, model, api_key)
        partners.append(partner)
        return Chat(partner, Conversation(partner.defaults), RecordingView(), folder=tmp_path, **options)

    yield make
    for partner in partners:
        partner.close()


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8080", "http://localhost:8080/v1"),
        ("http://localhost:8080/v1/", "http://localhost:8080/v1"),
        ("https://host/openai/v1/chat/completions", "https://host/openai/v1"),
        ("https://host/api/v3", "https://host/api/v3"),
    ],
)
def test_addresses(url, base):
    assert base_url(url) == base


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", ""])
def test_addresses_that_are_none(url):
    with pytest.raises(InvalidRequestError, match="--url takes an address such as"):
        base_url(url)


def test_an_answer_comes_with_what_is_known_of_it(make_chat, server):
    server.answer = events(
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        usage={"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
    )
    chat = make_chat()
    assert chat.take("first"), chat.view.said
    assert chat.view.pieces == [("BEGIN", False), ("Hel", False), ("lo", False)]
    (report,) = chat.view.reports
    assert (report.finish_reason, report.num_prompt_tokens, report.num_completion_tokens) == ("stop", 9, 2)
    assert report.num_cached_tokens == 4 and chat.num_context_tokens == 11
    assert chat.partner.name == "first-model" and chat.partner.context_length == 64
    chat.take("second")
    assert server.requests[1]["messages"] == [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "second"},
    ]


def test_only_what_the_user_chose_is_sent(make_chat, server):
    chat = make_chat("second-model", "secret")
    chat.take("first")
    assert server.headers["Authorization"] == "Bearer secret"
    assert server.requests[0] == {
        "model": "second-model",
        "messages": [{"role": "user", "content": "first"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for line in (
        "/temperature 0.8",
        "/max-tokens 5",
        "/set stop END",
        "/set top_k 3",
        "/set logit_bias 5=-1",
    ):
        assert chat.take(line)
    chat.take("second")
    sent = server.requests[1]
    assert (sent["temperature"], sent["max_tokens"], sent["stop"], sent["top_k"]) == (0.8, 5, ["END"], 3)
    assert sent["logit_bias"] == {"5": -1.0} and "top_p" not in sent
    chat.take("/settings")
    assert "top_p: the server's" in chat.view.texts("listing")[0]
    assert "temperature: 0.8  (changed)" in chat.view.texts("listing")[0]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_in_its_own_field(make_chat, server, field):
    server.answer = events({field: "Hm."}, {"content": "Yes"})
    chat = make_chat()
    chat.take("first")
    assert chat.view.pieces[1:] == [("Hm.", True), ("Yes", False)]


def test_reasoning_that_a_server_leaves_in_the_text(make_chat, server):
    server.answer = events({"content": "<thi"}, {"content": "nk>Hm.</think>"}, {"content": "Yes"})
    chat = make_chat()
    chat.take("first")
    assert "".join(text for text, is_reasoning in chat.view.pieces[1:] if is_reasoning) == "Hm."
    assert chat.conversation.messages[1]["content"] == "Yes"


def test_constraints_that_the_protocol_has(make_chat, server):
    make_chat(constraint={"json": True}).take("x")
    make_chat(constraint={"schema": '{"type": "integer"}'}).take("x")
    assert server.requests[0]["response_format"] == {"type": "json_object"}
    assert server.requests[1]["response_format"]["json_schema"]["schema"] == {"type": "integer"}
    chat = make_chat(constraint={"regex": "a"})
    assert not chat.take("x")
    assert "OpenAI's protocol has no regex" in chat.view.texts("error")[0]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            401,
            b'{"error": {"message": "no key"}}',
            "refused with status 401: no key; give a key with --api-key",
        ),
        (404, b"not here", "status 404: not here; --url takes the address of a server"),
        (429, b'{"detail": "busy"}', "status 429: busy; the server is busy"),
        (
            400,
            b'{"error": {"code": "context_length_exceeded", "message": "9 > 8"}}',
            "9 > 8; start anew with /clear",
        ),
        (500, b"x" * 1000, "..."),
        (302, b"", "points to https://elsewhere.example/v1; give that address"),
    ],
)
def test_refusals_are_told_in_the_servers_words(make_chat, server, status, body, message):
    server.refusal = status, body
    chat = make_chat()
    assert not chat.take("first")
    assert message in chat.view.texts("error")[0] and len(chat.view.texts("error")[0]) < 500
    assert chat.conversation.messages == []  # the question was taken back
    server.refusal = None
    assert chat.take("second")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([b"data: {nonsense\n\n"], "answered something that is not JSON"),
        ([b"data: 5\n\n"], "sent '5', expected a JSON object"),
        ([{"error": {"message": "out of memory"}}], "failed: out of memory"),
    ],
)
def test_answers_that_break_are_told(make_chat, server, answer, message):
    server.answer = answer
    chat = make_chat()
    assert not chat.take("first")
    assert message in chat.view.texts("error")[0]


def test_an_answer_that_is_no_stream_is_told(make_chat, server):
    server.content_type = "application/json"
    chat = make_chat()
    assert not chat.take("first")
    assert "answered with application/json, expected text/event-stream" in chat.view.texts("error")[0]


def test_comments_and_keep_alives_are_no_text(make_chat, server):
    server.answer = [b": keep-alive\n\n", b"event: message\n", *events({"content": "Hello"})]
    chat = make_chat()
    assert chat.take("first") and chat.conversation.messages[1]["content"] == "Hello"


@pytest.mark.parametrize("comes_first", [True, False], ids=["while it writes", "before it writes"])
def test_stopping_gives_the_connection_up_at_once(make_chat, server, comes_first):
    first = [{"choices": [{"delta": {"content": "par"}}]}] if comes_first else []
    server.answer = [*first, *([0.05, b": still here\n\n"] * 200)]  # ten seconds
    chat = make_chat()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(chat.take("first")))
    began_at = time.monotonic()
    thread.start()
    while not server.requests or (comes_first and len(chat.view.pieces) < 2):
        time.sleep(0.01)
        assert time.monotonic() - began_at < 5
    chat.stop()
    thread.join(5)
    assert taken == [comes_first]
    if comes_first:
        assert chat.conversation.messages[1]["content"] == "par"
    else:
        assert chat.view.texts("error") == ["stopped; the question was taken back"]
    while not server.num_broken_off:
        time.sleep(0.01)
        assert time.monotonic() - began_at < 8
    server.answer = events({"content": "two"})
    assert chat.take("second")


def test_another_of_the_servers_models(make_chat, server):
    chat = make_chat()
    assert chat.take("/model second-model") and chat.take("first")
    assert server.requests[0]["model"] == "second-model"
    assert not chat.take("/model third-model")
    assert "has no model 'third-model', only first-model, second-model" in chat.view.texts("error")[0]
    assert chat.partner.name == "second-model"


@pytest.mark.parametrize("line", ["/template chatml", "/lazy on", "/speculative off"])
def test_what_a_server_decides_is_told(make_chat, line):
    chat = make_chat()
    assert not chat.take(line)
    assert "decides" in chat.view.texts("error")[0]


def test_a_context_of_unknown_length(make_chat, server):
    chat = make_chat("second-model")
    chat.take("first")
    assert chat.take("/context") and chat.view.texts("show") == ["unknown of unknown tokens used."]
    server.answer = events({"content": "x"}, finish_reason="length")
    chat.take("second")
    assert chat.view.texts("warn") == ["The server says that the answer reached its longest length."]


def test_how_much_to_think_is_sent_in_the_protocols_words(make_chat, server):
    chat = make_chat(thinking="off")
    chat.take("first")
    assert chat.take("/think high") and chat.take("second")
    assert [request["reasoning_effort"] for request in server.requests] == ["none", "high"]
    assert not chat.take("/think hard")


def test_debug_shows_the_request(make_chat):
    chat = make_chat(api_key="secret")
    chat.take("/debug")
    chat.take("first")
    assert '"content": "first"' in chat.view.texts("show")[1]
    assert "secret" not in str(chat.view.said)


def test_a_server_that_is_not_there(server):
    server.close()
    with pytest.raises(TorchlessError, match=r"cannot reach http://127.0.0.1:\d+/v1: .*is a server running"):
        RemotePartner(server.url)


@pytest.mark.parametrize("models", [[], {"data": 5}, {"object": "list"}])
def test_a_list_of_models_that_is_none(server, models):
    server.models = models
    with pytest.raises(TorchlessError, match="expected a list of models"):
        RemotePartner(server.url)


def test_a_server_without_models_needs_a_name(server):
    server.models = {"data": []}
    with pytest.raises(TorchlessError, match="lists no models; name one"):
        RemotePartner(server.url)
    partner = RemotePartner(server.url, "some-model")
    assert partner.name == "some-model"
    partner.close()


def test_without_httpx_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'torchless\[chat\]'"):
        RemotePartner("http://localhost:1")


def test_closing_ends_the_thread_and_can_be_repeated(server):
    def others():
        return [thread for thread in threading.enumerate() if thread.name == "torchless-chat"]

    before = len(others())
    partner = RemotePartner(server.url)
    assert len(others()) == before + 1
    partner.close()
    partner.close()
    assert len(others()) == before
