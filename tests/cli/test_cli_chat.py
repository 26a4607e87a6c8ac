"""`torchless chat` with a fake model: the conversation that the model gets, commands, files, failures."""

from __future__ import annotations

import json
import math

import pytest

from torchless.chat.conversation import Conversation
from torchless.errors import InvalidRequestError
from torchless.sampling.parameters import SamplingParams


def chat(cli, *lines, options=()):
    """Pipes lines into a chat: (status, lines of stdout, stderr)."""
    status, out, err = cli("chat", "m.gguf", *options, stdin="\n".join(lines).encode())
    return status, out.splitlines(), err


@pytest.fixture
def llm(fake_llm):
    return fake_llm(["one"], ["two"], ["three"], ["four"], has_template=True)


def messages(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


def test_each_line_is_a_question_and_stdout_has_the_answers(cli, llm):
    assert chat(cli, "first", "", "second") == (0, ["one", "two"], "")
    assert [request[1] for request in llm.requests] == [messages("first"), messages("first", "one", "second")]
    assert llm.is_closed


def test_the_system_message_comes_first(cli, llm):
    chat(cli, "first", options=["--system", "Be kind."])
    assert llm.requests[0][1] == [{"role": "system", "content": "Be kind."}, *messages("first")]


def test_messages_of_several_lines(cli, llm):
    chat(cli, '"""Dear', "all,", '"""', '"""in one line"""', '/system """Be', 'kind."""', "next")
    assert llm.requests[0][1] == messages("Dear\nall,")
    assert llm.requests[1][1][-1]["content"] == "in one line"
    assert llm.requests[2][1][0] == {"role": "system", "content": "Be\nkind."}


def test_clear_forgets(cli, llm):
    chat(cli, "first", "/clear", "second")
    assert llm.requests[1][1] == messages("second")


def test_retry_asks_again(cli, llm):
    status, out, _ = chat(cli, "first", "/retry", "second")
    assert (status, out) == (0, ["one", "two", "three"])
    assert llm.requests[1][1] == messages("first")
    assert llm.requests[2][1] == messages("first", "two", "second")


def test_retry_without_question_is_an_error(cli, llm):
    status, _, err = chat(cli, "/retry")
    assert status == 1 and "nothing was asked yet" in err


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("temperature 0.5", "temperature", 0.5),
        ("temp 0", "temperature", 0.0),
        ("parameter top_k 7", "top_k", 7),
        ("top-p 0.5", "top_p", 0.5),
        ("num_predict 9", "max_tokens", 9),
        ("stop END of it", "stop", ("END of it",)),
        ('stop ["a", "b"]', "stop", ("a", "b")),
        ("seed 5", "seed", 5),
        ("ignore_eos true", "ignore_eos", True),
        ("ignore_eos on", "ignore_eos", True),
        ("logit_bias 5=-1 6=-inf", "logit_bias", {5: -1.0, 6: -math.inf}),
    ],
)
def test_settings_reach_the_model(cli, llm, text, name, value):
    status, _, err = chat(cli, f"/set {text}", "first")
    assert (status, err) == (0, "")
    assert getattr(llm.requests[0][2]["params"], name) == value


def test_settings_go_back_to_the_models(cli, llm):
    chat(cli, "/set temp 0.5", "/set max_tokens 4", "/set temperature default", "/set max_tokens none", "x")
    assert llm.requests[0][2]["params"].temperature == llm.defaults.temperature
    assert llm.requests[0][2]["params"].max_tokens is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/set top_p 3", "top_p must be a number from 0 to 1"),
        ("/set temperatur 3", "no setting 'temperatur'; did you mean temperature?"),
        ("/set temperature", "needs a value"),
        ("/set temperature warm", "temperature must be"),
        ("/set logit_bias x", "ID=VALUE"),
        ("/sett", "no command /sett; did you mean /set?"),
        ("/unknown", "/help lists the commands"),
        ("/save", "needs the name of a file"),
        ("/load nosuch.json", "nosuch.json: No such file or directory"),
    ],
)
def test_wrong_commands_are_explained_and_the_chat_goes_on(cli, llm, text, message):
    status, out, err = chat(cli, text, "first")
    assert err.startswith("error: ") and message in err and len(err.splitlines()) == 1
    assert out == ["one"]
    assert status == 1  # a script wants to know


def test_options_are_the_first_settings(cli, llm):
    chat(cli, "first", options=["--temp", "0.25", "-n", "3"])
    params = llm.requests[0][2]["params"]
    assert (params.temperature, params.max_tokens, params.top_k) == (0.25, 3, 40)


def test_help_lists_every_command(cli, llm):
    _, out, _ = chat(cli, "/help")
    for name in (
        "/help",
        "/clear",
        "/system",
        "/set",
        "/show",
        "/retry",
        "/save",
        "/load",
        "/exit",
        "/bye",
        "/quit",
    ):
        assert any(name in line for line in out)


@pytest.mark.parametrize("word", ["/exit", "/bye", "/quit"])
def test_leaving(cli, llm, word):
    assert chat(cli, word, "never asked") == (0, [], "")
    assert llm.requests == []


def test_show_tells_context_and_settings(cli, llm):
    _, out, _ = chat(cli, "first", "/set temp 0.5", "/show")
    text = "\n".join(out)
    assert "context  4 of 64 tokens used" in text
    assert "temperature 0.5 (changed)" in " ".join(text.split())


def test_a_conversation_is_saved_and_loaded(cli, fake_llm, tmp_path):
    file = tmp_path / "talk.json"
    fake_llm(["one"], has_template=True)
    chat(cli, "/system Be kind.", "/set temp 0.5", "/set logit_bias 5=-inf", "first", f"/save {file}")
    llm = fake_llm(["two"], has_template=True)
    assert chat(cli, f"/load {file}", "second")[0] == 0
    system = {"role": "system", "content": "Be kind."}
    assert llm.requests[0][1] == [system, *messages("first", "one", "second")]
    params = llm.requests[0][2]["params"]
    assert params.temperature == 0.5 and params.logit_bias == {5: -math.inf}
    stored = json.loads(file.read_text())  # valid JSON, in the shape of the field's APIs
    assert stored["messages"][1] == {"role": "user", "content": "first"}


def test_a_plain_list_of_messages_can_be_loaded(cli, llm, tmp_path):
    file = tmp_path / "list.json"
    file.write_text(json.dumps(messages("a", "b")))
    chat(cli, f"/load {file}", "c")
    assert llm.requests[0][1] == messages("a", "b", "c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a saved conversation"),
        ("\xff", "not a saved conversation"),
        ("[" * 100_000, "not a saved conversation"),
        ("5", "not a conversation"),
        ('{"version": 99, "messages": []}', "not a conversation that this version"),
        ('{"messages": 5}', "messages: found int"),
        ('[{"role": "pirate", "content": "x"}]', "expected a role"),
        ('[{"role": "user", "content": 5}]', "expected a role"),
        ('["x"]', "expected a role"),
        ('{"messages": [], "settings": []}', "settings"),
        ('{"messages": [], "settings": {"warmth": 1}}', "settings"),
        ('{"messages": [], "settings": {"temperature": -1}}', "temperature must be"),
        ('{"messages": [], "settings": {"logit_bias": {"a": 1}}}', "settings"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    file = tmp_path / "talk.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidRequestError, match=r"talk\.json") as caught:
        Conversation.load(file, SamplingParams())
    assert message in str(caught.value)


def test_a_full_context_is_explained_and_the_question_taken_back(cli, llm):
    llm.too_long = True
    status, out, err = chat(cli, "first", "second")
    assert (status, out) == (1, [])
    assert "has grown to 99 tokens but the context holds 64" in err and "/clear" in err
    assert llm.requests[1][1] == messages("second")


def test_a_context_that_fills_up_is_told(cli, llm):
    llm.finish_reason = "length"
    _, out, err = chat(cli, "first")
    assert out == ["one"]
    assert "The context of 64 tokens is full" in err


def test_a_failure_in_the_middle_takes_the_question_back(cli, fake_llm):
    llm = fake_llm(["par", InvalidRequestError("no")], ["two"], has_template=True)
    _, out, err = chat(cli, "first", "second")
    assert out == ["par", "two"] and err == "error: no\n"
    assert llm.requests[1][1] == messages("second")


def test_a_failed_retry_keeps_the_old_answer(cli, fake_llm):
    llm = fake_llm(["one"], [InvalidRequestError("no")], ["three"], has_template=True)
    chat(cli, "first", "/retry", "second")
    assert llm.requests[2][1] == messages("first", "one", "second")


def test_a_model_without_template_is_refused(cli, fake_llm):
    fake_llm()
    status, out, err = cli("chat", "m.gguf", stdin=b"hello")
    assert (status, out) == (1, "")
    assert "fake.gguf has no chat template, and none is guessed" in err and "--chat-template" in err


def test_chat_takes_one_model_or_the_built_in_one(cli, fake_llm):
    llm = fake_llm(has_template=True)
    assert cli("chat", "a", "b")[0] == 2
    assert cli("chat", "-m", "m.gguf")[0] == 0
    assert llm.loaded_with["model"] == "m.gguf"
    assert cli("chat")[0] == 0
    assert llm.loaded_with["model"] is None


def test_broken_utf8_is_refused_with_its_offset(cli, llm):
    status, out, err = cli("chat", "m.gguf", stdin=b"first\nsecond\xff\n")
    assert (status, out) == (1, "one\n")
    assert "standard input is not valid UTF-8: byte 0xff at offset 12" in err


def test_ctrl_c_in_a_pipe_ends_it(cli, fake_llm):
    import signal

    before = signal.getsignal(signal.SIGINT)
    fake_llm(["par", KeyboardInterrupt()], has_template=True)
    try:
        assert chat(cli, "first", "second") == (130, ["par"], "")
    finally:
        signal.signal(signal.SIGINT, before)


def test_reasoning_does_not_reach_a_pipe(cli, fake_llm):
    fake_llm(["<think>Hm.</think>\n\nYes."], has_template=True)
    assert chat(cli, "first") == (0, ["Yes."], "")


def test_a_style_of_template_can_be_named(cli, fake_llm):
    llm = fake_llm()
    assert chat(cli, "first", options=["--chat-template", "chatml"])[0] == 0
    assert "<|im_start|>" in llm.loaded_with["chat_template"]
    status, _, err = chat(cli, "first", options=["--chat-template", "nosuch"])
    assert (
        status == 1
        and "--chat-template nosuch: no such file; expected one, or a style: alpaca, chatml" in err
    )


def test_a_model_that_was_swapped_in_is_closed_at_the_end(cli, fake_llm):
    llm = fake_llm(["one"], ["two"], has_template=True)
    status, out, _ = chat(cli, "first", "/model other.gguf", "second")
    assert status == 0 and out == ["one", "fake answers from now on.", "two"]
    assert llm.loaded_with["model"] == "other.gguf" and llm.is_closed
