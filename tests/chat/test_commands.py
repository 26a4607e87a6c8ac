"""Slash commands, with a fake model and a view that notes what it is told."""

from __future__ import annotations

import json

import pytest

import torchless
from torchless.chat.commands import all_commands
from torchless.errors import InvalidRequestError, OutOfMemoryError

REQUIRED = """
    /quit /exit /q /clear /thinking /temperature /top-k /top-p /speculative /max-tokens /debug /system /settings
    /context /save /fullsave /load /retry /code /diff /apply /discard /think
    /help /model /template /lazy /set /show /bye /?
"""


def num_tokens(prompt):
    """Tokens of the fake model: the begin token, and bytes, of which a space has three."""
    return 1 + len(prompt.replace(" ", "▁").encode())


def asked(chat):
    """What the model got last."""
    return chat.partner.llm.requests[-1][1]


def test_every_command_that_is_expected_is_there_once():
    names = [name for command in all_commands() for name in command.names]
    assert set(REQUIRED.split()) <= set(names)
    assert len(names) == len(set(names))


def test_help_lists_every_command(make_chat):
    chat = make_chat()
    assert chat.take("/help")
    (text,) = chat.view.texts("show")
    assert all(name in text for name in REQUIRED.split())


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("/temperature 0.5", "temperature", 0.5),
        ("/temp 0", "temperature", 0.0),
        ("/top-k 7", "top_k", 7),
        ("/top-p 0.5", "top_p", 0.5),
        ("/max-tokens 9", "max_tokens", 9),
        ("/set min_p 0.1", "min_p", 0.1),
    ],
)
def test_short_commands_set_parameters(make_chat, line, name, value):
    chat = make_chat()
    assert chat.take(line) and chat.take("hi")
    assert getattr(chat.partner.llm.requests[-1][2]["params"], name) == value
    assert name in chat.chosen
    assert chat.take(f"/set {name} default")
    assert name not in chat.chosen


def test_a_parameter_without_value_is_shown(make_chat):
    chat = make_chat()
    chat.take("/temperature")
    assert chat.view.texts("show") == ["temperature is 0.8."]


def test_reasoning_is_told_apart_kept_and_not_sent_again(make_chat, tmp_path):
    chat = make_chat(["<think>Hm", "m.</think>\n\nYes", "."], ["two"])
    chat.take("first")
    assert chat.view.pieces == [("BEGIN", False), ("Hm", True), ("m.", True), ("Yes", False), (".", False)]
    assert chat.conversation.messages[1]["reasoning_content"] == "Hmm."
    chat.take("second")
    assert asked(chat)[1] == {"role": "assistant", "content": "Yes."}
    chat.take(f"/save {tmp_path / 'a.json'}")
    chat.take(f"/fullsave {tmp_path / 'b.json'}")
    assert "Hmm" not in (tmp_path / "a.json").read_text()
    stored = json.loads((tmp_path / "b.json").read_text())
    assert stored["messages"][1]["reasoning_content"] == "Hmm."
    assert stored["messages"][1]["statistics"]["num_completion_tokens"] == 3
    assert stored["partner"]["model"] == "fake.gguf"
    other = make_chat()
    assert other.take(f"/load {tmp_path / 'b.json'}")
    assert other.conversation.messages == chat.conversation.messages


def test_a_prompt_that_ends_inside_of_reasoning(make_chat):
    chat = make_chat(["Hm.</think>Yes"], template="{{ messages[0].content }}<think>\n")
    chat.take("first")
    assert chat.view.pieces[1:] == [("Hm.", True), ("Yes", False)]


def test_answers_that_must_be_json_have_no_reasoning(make_chat):
    chat = make_chat(["<think>", "{}"], constraint={"json": True})
    chat.take("first")
    assert chat.conversation.messages[1]["content"] == "<think>{}"


@pytest.mark.parametrize("line", ["/thinking", "/thinking off", "/thinking hide"])
def test_thinking_is_a_switch(make_chat, line):
    chat = make_chat()
    assert chat.take(line) and not chat.shows_reasoning
    assert chat.take("/thinking on") and chat.shows_reasoning
    assert not chat.take("/thinking maybe")
    assert chat.view.texts("error") == ["/thinking takes on or off, got 'maybe'"]


SWITCH = (
    "{% if enable_thinking is defined and not enable_thinking %}quick {% endif %}{{ messages[-1].content }}"
)
GRADES = "{{ reasoning_effort or 'medium' }} {{ messages[-1].content }}"


@pytest.mark.parametrize(
    ("template", "level", "prompt"),
    [
        (SWITCH, "off", "quick hi"),
        (SWITCH, "on", "hi"),
        (GRADES, "high", "high hi"),
        (GRADES, "on", "medium hi"),
    ],
)
def test_the_template_is_told_how_much_to_think(make_chat, template, level, prompt):
    chat = make_chat(template=template)
    assert chat.take(f"/think {level}") and chat.take("/debug on") and chat.take("hi")
    assert chat.view.texts("show")[2] == prompt
    assert chat.partner.llm.last_request.chat_template_kwargs == chat.partner._thinking_values(level)
    assert chat.take("/think default") and chat.thinking is None


@pytest.mark.parametrize(
    ("template", "level", "message"),
    [
        (SWITCH, "high", "knows no grade 'high'"),
        (GRADES, "off", "this model always thinks"),
        ("{{ messages[-1].enable_thinking }}", "on", "has no setting for how much it thinks"),
        (SWITCH, "hard", "thinking is one of off, on, low, medium, high, got 'hard'"),
    ],
)
def test_what_a_template_cannot_be_told_is_refused(make_chat, template, level, message):
    chat = make_chat(template=template)
    assert not chat.take(f"/think {level}")
    assert message in chat.view.texts("error")[0] and chat.thinking is None


def test_a_model_that_cannot_be_asked_to_think_thinks_as_ever(make_chat, loads):
    chat = make_chat(template=SWITCH)
    loads.fake()
    assert chat.take("/think off") and chat.take("/model other.gguf") and chat.take("hi")
    assert "It thinks as it does by itself: this model's chat template has no" in chat.view.texts("note")[0]


def test_marks_that_are_control_tokens_are_asked_for(make_chat):
    chat = make_chat(template="{{ messages[-1].content }}[THINK]x[/THINK]")
    chat.take("hi")
    assert not chat.partner.llm.last_request.show_special  # there they are ordinary text
    chat.partner.llm.tokenizer.special_ids |= {tokens := 258}
    chat.partner.llm.tokenizer.token_to_id = lambda text: tokens if text == "[THINK]" else None
    chat.take("hi")
    assert chat.partner.llm.last_request.show_special


def test_debug_shows_the_prompt_and_what_the_answer_took(make_chat):
    chat = make_chat()
    chat.take("/debug on")
    chat.take("first")
    _, prompt, report = chat.view.texts("show")
    assert prompt == "user: first\nassistant:"
    assert "answer         1 tokens" in report and "ended by       stop" in report


def test_context_tells_how_full_it_is(make_chat):
    chat = make_chat()
    chat.take("first")
    chat.take("/context")
    assert "4 of 64 tokens used (6%)" in chat.view.texts("show")[0]
    chat.take("/system Be very kind to them.")  # whose tokens are counted anew
    chat.take("/context")
    text = "system: Be very kind to them.\nuser: first\nassistant: one\nassistant:"
    assert f"{num_tokens(text)} of 64 tokens used" in chat.view.texts("show")[-1]


def test_a_stopped_answer_is_kept_as_far_as_it_came(make_chat):
    chat = make_chat(["par", "tial", "never"])
    piece = chat.view.piece
    chat.view.piece = lambda item: (piece(item), chat.stop() if item.text == "tial" else None)
    assert chat.take("first")
    assert chat.conversation.messages[1]["content"] == "partial"
    assert chat.conversation.messages[1]["statistics"]["finish_reason"] == "cancelled"
    # counted, since nobody told:
    assert chat.context_tokens() == num_tokens("user: first\nassistant: partial\nassistant:")


def test_a_question_stopped_before_its_answer_is_taken_back(make_chat):
    chat = make_chat(["never"])
    begin = chat.view.begin_answer
    chat.view.begin_answer = lambda: (begin(), chat.stop())
    assert not chat.take("first")
    assert chat.view.texts("error") == ["stopped; the question was taken back"]
    assert chat.conversation.messages == []


# -- another model --------------------------------------------------------------------------------


@pytest.fixture
def loads(monkeypatch, make_chat):
    """`torchless.load` gives what is in `results`, one after another; `calls` has what it was called with."""
    from cli_fakes import FakeLLM

    class Loads:
        def __init__(self):
            self.results, self.calls = [], []

        def __call__(self, model, *, progress, **keywords):
            self.calls.append((model, keywords))
            result = self.results.pop(0)
            if isinstance(result, Exception):
                raise result
            return result

        def fake(self, *answers, has_template=True):
            llm = FakeLLM(answers or (["new"],), has_template=has_template)
            self.results.append(llm)
            return llm

    loads = Loads()
    monkeypatch.setattr(torchless, "load", loads, raising=False)
    return loads


def test_another_model_answers_with_what_the_user_chose(make_chat, loads):
    from torchless.sampling.parameters import SamplingParams

    chat = make_chat()
    old, new = chat.partner.llm, loads.fake()
    new.defaults = SamplingParams(temperature=0.3, top_k=5)
    chat.take("/top-p 0.5")
    chat.take("first")
    assert chat.take("/model other.gguf")
    assert chat.view.texts("show")[-1] == "fake answers from now on."
    assert old.is_closed and chat.partner.llm is new
    chat.take("second")
    assert [message["content"] for message in asked(chat)] == ["first", "one", "second"]
    params = new.requests[0][2]["params"]
    assert (params.temperature, params.top_k, params.top_p) == (0.3, 5, 0.5)


@pytest.mark.parametrize("failure", [InvalidRequestError("broken"), None], ids=["load", "template"])
def test_a_model_that_fails_leaves_the_old_one(make_chat, loads, failure):
    chat = make_chat(["one"], ["two"])
    old = chat.partner.llm
    if failure is None:
        new = loads.fake(has_template=False)
    else:
        loads.results.append(failure)
    assert not chat.take("/model other.gguf")
    assert chat.view.texts("error")[0].startswith("broken" if failure else "fake.gguf has no chat template")
    assert failure is not None or new.is_closed
    assert not old.is_closed and chat.take("first") and chat.partner.llm is old


def test_without_memory_for_both_the_old_model_goes_first_and_comes_back(make_chat, loads):
    chat = make_chat()
    old = chat.partner.llm
    loads.results += [OutOfMemoryError("beside"), OutOfMemoryError("alone, too")]
    again = loads.fake()
    assert not chat.take("/model large.gguf")
    assert chat.view.texts("error") == ["alone, too"]
    assert old.is_closed and chat.partner.llm is again
    assert [model for model, _ in loads.calls] == ["large.gguf", "large.gguf", "fake.gguf"]


def test_a_model_that_would_get_a_shorter_context_beside_the_old_one_is_loaded_alone(make_chat, loads):
    chat = make_chat()
    squeezed, alone = loads.fake(), loads.fake()
    squeezed.more_info = {"trained_context_length": 4096}  # and it has 64
    assert chat.take("/model large.gguf")
    assert squeezed.is_closed and chat.partner.llm is alone


def test_where_nothing_can_be_loaded_again_that_is_told(make_chat, loads):
    chat = make_chat()
    loads.results += [OutOfMemoryError("beside"), OutOfMemoryError("alone"), OutOfMemoryError("again")]
    assert not chat.take("/model large.gguf")
    assert chat.view.texts("error") == ["alone. The model before could not be loaded again either: again"]
    assert not chat.take("first")
    assert chat.view.texts("error")[-1] == "no model is loaded; /model loads one"
    loads.fake()
    assert chat.take("/model small.gguf") and chat.take("first")


def test_keywords_of_one_model_do_not_go_to_another(make_chat, loads):
    chat = make_chat()
    chat.partner._swap.keywords.update(ctx=128, lora="a.gguf", chat_template="x", speculative="draft")
    loads.fake()
    assert chat.take("/model other.gguf")
    assert loads.calls == [("other.gguf", {"ctx": 128})]
    (note,) = chat.view.texts("note")
    assert (
        note == "Left out, since it was meant for the model before: --chat-template, --lora, --speculative."
    )


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("/lazy on", {"lazy": True}),
        ("/lazy experts", {"lazy": "experts"}),
        ("/lazy off", {"lazy": False}),
        ("/speculative off", {"speculative": "off"}),
        ("/speculative on", {"speculative": "auto"}),
    ],
)
def test_the_model_is_loaded_again_with_a_change(make_chat, loads, line, change):
    chat = make_chat()
    new = loads.fake()
    assert chat.take(line), chat.view.texts("error")
    assert loads.calls == [("fake.gguf", change)] and chat.partner.llm is new


@pytest.mark.parametrize("line", ["/lazy", "/lazy perhaps", "/speculative", "/speculative perhaps"])
def test_changes_that_make_no_sense_are_refused(make_chat, line):
    chat = make_chat()
    assert not chat.take(line)
    assert "takes on" in chat.view.texts("error")[0]


# -- templates ------------------------------------------------------------------------------------


def test_another_template_writes_the_prompt(make_chat, tmp_path):
    chat = make_chat()
    chat.take("/template")
    assert chat.view.texts("show")[0].splitlines()[0] == "in use   default, the model's own"
    assert chat.take("/template chatml") and chat.take("/debug on") and chat.take("hello")
    assert chat.view.texts("show")[-2] == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert bytes(token_id - 3 for token_id in asked(chat)[1:]).decode() == chat.view.texts("show")[-2]
    assert asked(chat)[0] == 1  # the begin token
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}!")
    assert chat.take(f"/template {tmp_path / 'own.jinja'}") and chat.take("/clear") and chat.take("hello")
    assert chat.view.texts("show")[-2] == "hello!"
    assert chat.take("/template default")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no chat template"), (b"{% if", "not valid"), (b"\xff", "not UTF-8")]
)
def test_a_template_that_is_none_changes_nothing(make_chat, tmp_path, content, message):
    chat = make_chat()
    path = tmp_path / "own.jinja"
    if content is not None:
        path.write_bytes(content)
    assert not chat.take(f"/template {path}")
    assert message in chat.view.texts("error")[0]
    assert chat.take("hello") and asked(chat) == [{"role": "user", "content": "hello"}]


# -- files and changes to them --------------------------------------------------------------------


def test_files_are_sent_with_questions(make_chat, tmp_path):
    (tmp_path / "a.txt").write_text("apple\n")
    chat = make_chat()
    chat.take("What is in @a.txt?")
    assert "a.txt:\n```txt\napple\n```" in asked(chat)[0]["content"]
    assert chat.view.texts("note") == ["Sent with it: a.txt."]


def test_coding_proposes_shows_and_writes(make_chat, tmp_path):
    (tmp_path / "a.txt").write_text("apple\n")
    answer = "Here:\n\na.txt\n<<<<<<< SEARCH\napple\n=======\npear\n>>>>>>> REPLACE\n"
    chat = make_chat([answer])
    chat.take("/system Be kind.")
    chat.take("/code")
    chat.take("Make @a.txt a pear")
    system = asked(chat)[0]
    assert system["role"] == "system" and system["content"].startswith("Be kind.\n\nYou change files")
    assert chat.view.texts("note")[-1].startswith("Changes to a.txt: /diff shows them")
    chat.take("/diff")
    assert "-apple\n+pear" in chat.view.texts("show")[-1]
    assert (tmp_path / "a.txt").read_text() == "apple\n"
    assert chat.take("/apply") and (tmp_path / "a.txt").read_text() == "pear\n"
    assert not chat.take("/apply")
    chat.take("again")
    assert "no lines like those that begin 'apple'" in chat.view.texts("error")[-1]
    assert chat.take("/code off") and chat.take("plain") and asked(chat)[0]["content"] == "Be kind."


def test_without_coding_answers_are_only_text(make_chat):
    chat = make_chat(["a.txt\n<<<<<<< SEARCH\n=======\npear\n>>>>>>> REPLACE\n"])
    chat.take("first")
    assert not chat.take("/diff")
    assert chat.view.texts("error") == ["there are no changes to files; /code lets answers propose some"]
