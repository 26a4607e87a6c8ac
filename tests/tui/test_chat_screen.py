"""The chat's screen, steered by textual's pilot: what is typed, what is shown, what reaches the model."""

from __future__ import annotations

import logging
import threading

import pytest

from torchless.errors import InvalidRequestError


def contents(screen):
    return [message["content"] for message in screen.app.chat.conversation.messages]


def test_a_question_and_its_answer(on_screen):
    async def test(screen):
        assert "fake" in screen.text and "Enter sends" in screen.text
        await screen.send("How are you?")
        assert "How are you?" in screen.text and "Very well." in screen.text
        assert "2 tokens · 100.0 tok/s · first token 12 ms" in screen.text
        assert "context 5/64 (8%)" in screen.text
        assert screen.typed == "" and contents(screen) == ["How are you?", "Very well."]

    on_screen(test, ["Very", " well."])


def test_markdown_is_shown_as_such(on_screen):
    async def test(screen):
        await screen.send("x")
        assert "Title" in screen.text and "# Title" not in screen.text
        assert "• item" in screen.text and "return 1" in screen.text and "```" not in screen.text

    on_screen(test, ["# Title\n\n- it", "em\n\n```python\nretu", "rn 1\n```\n"])


def test_control_characters_of_a_model_do_not_reach_the_terminal(on_screen):
    async def test(screen):
        await screen.send("x")
        assert "\x1b" not in screen.text and "␛[31mred" in screen.text

    on_screen(test, ["`\x1b[31mred`"])


def test_text_of_a_model_is_no_markup_of_the_screen(on_screen):
    async def test(screen):
        await screen.send("[bold]x[/bold] [nonsense")
        assert "[bold]x[/bold] [nonsense" in screen.text and "[red]y[/red]" in screen.text

    on_screen(test, ["<think>[red]y[/red]</think>z"])


def test_reasoning_is_dimmed_and_folded(on_screen):
    async def test(screen):
        await screen.send("x")
        assert "▼ Thought for" in screen.text and "Hm, well." in screen.text and "Yes." in screen.text
        (shown,) = screen.app.query(".reasoning-text")
        assert shown.styles.text_style.dim
        await screen.pilot.press("ctrl+t")
        await screen.pilot.pause()
        assert "▶ Thought for" in screen.text and "Hm, well." not in screen.text and "Yes." in screen.text
        await screen.send("/thinking on")
        assert "Hm, well." in screen.text

    on_screen(test, ["<think>Hm, ", "well.</think>", "Yes."])


def test_reasoning_can_begin_hidden(on_screen):
    async def test(screen):
        await screen.send("x")
        assert "▶ Thought for" in screen.text and "Hm" not in screen.text

    on_screen(test, ["<think>Hm</think>Yes."], shows_reasoning=False)


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
def test_an_answer_is_stopped_and_kept(on_screen, key):
    goes_on = threading.Event()

    async def test(screen):
        await screen.type("first")
        await screen.pilot.press("enter")
        await screen.wait(lambda: "partial" in screen.text)
        assert screen.app.is_busy and "Esc stops" in screen.text
        await screen.type("meanwhile")
        await screen.pilot.press("enter")  # not sent: one thing at a time
        await screen.pilot.press(key)
        goes_on.set()
        await screen.wait(lambda: not screen.app.is_busy)
        assert contents(screen) == ["first", "partial"] and screen.typed == "meanwhile"
        assert "stopped" in screen.text
        await screen.pilot.press("enter")
        await screen.wait(lambda: len(contents(screen)) == 4)

    on_screen(test, ["partial", lambda: goes_on.wait(10), " more", " and more"], ["two"])


def test_a_failed_question_comes_back_into_the_field(on_screen):
    async def test(screen):
        await screen.send("first")
        assert "no such thing" in screen.text and screen.typed == "first" and contents(screen) == []

    on_screen(test, [InvalidRequestError("no such thing")])


def test_several_lines(on_screen):
    async def test(screen):
        await screen.pilot.press("a", "shift+enter", "b", "ctrl+j", "c", "backslash", "enter", "d", "enter")
        await screen.wait(lambda: len(contents(screen)) == 2)
        assert contents(screen)[0] == "a\nb\nc\nd"
        await screen.send('"""one line"""')
        assert contents(screen)[2] == "one line"
        await screen.type('"""Dear')
        await screen.pilot.press("enter", "a", "l", "l", "enter", '"', '"', '"', "enter")
        await screen.wait(lambda: len(contents(screen)) == 6)
        assert contents(screen)[4] == "Dear\nall"

    on_screen(test)


def test_arrow_keys_go_through_what_was_typed(on_screen):
    async def test(screen):
        await screen.send("first")
        await screen.send("second")
        await screen.type("draft")
        for keys, expected in [
            (["up"], "second"),
            (["up"], "first"),
            (["up"], "first"),
            (["down"], "second"),
            (["down"], "draft"),
            (["down"], "draft"),
        ]:
            await screen.pilot.press(*keys)
            assert screen.typed == expected

    on_screen(test)


def test_commands_are_suggested_and_completed(on_screen):
    async def test(screen):
        await screen.pilot.press("/", "t", "e", "m")
        assert "/temperature" in screen.text and "/template" in screen.text and "/clear" not in screen.text
        await screen.pilot.press("down", "down", "enter")
        assert screen.typed.startswith("/temp") and "uses" not in screen.text
        await screen.pilot.press("ctrl+u", "/", "s", "e", "t", "t", "enter")
        assert screen.typed == "/settings"
        await screen.pilot.press("enter")
        await screen.wait(lambda: "min_tokens" in screen.text)
        assert screen.typed == ""

    on_screen(test)


def test_tab_completes_files_and_settings(on_screen, tmp_path):
    (tmp_path / "apple.txt").write_text("red\n")
    (tmp_path / "apricot.txt").write_text("orange\n")
    (tmp_path / "banana.txt").write_text("yellow\n")

    async def test(screen):
        await screen.type("What is @b")
        await screen.pilot.press("tab")
        assert screen.typed == "What is @banana.txt"
        await screen.pilot.press("ctrl+u")
        await screen.type("What is @a")
        await screen.pilot.press("tab")
        assert screen.typed == "What is @ap" and "apple.txt" in screen.text and "apricot.txt" in screen.text
        await screen.pilot.press("down", "tab")
        assert screen.typed == "What is @apricot.txt" and "apple.txt" not in screen.text
        await screen.pilot.press("enter")
        await screen.wait(lambda: len(contents(screen)) == 2)
        assert "orange" in contents(screen)[0] and "Sent with it: apricot.txt." in screen.text
        assert "```" not in screen.text  # the question is shown as it was typed
        await screen.type("/set min_p")
        await screen.pilot.press("tab")
        assert screen.typed == "/set min_p "

    on_screen(test, folder=tmp_path)


def test_a_conversation_is_shown_again_when_it_is_loaded(on_screen, tmp_path):
    async def test(screen):
        await screen.send("first")
        await screen.send(f"/fullsave {tmp_path / 'talk.json'}")
        await screen.send("/clear")
        assert "Yes." not in screen.text and "Forgotten." in screen.text
        await screen.send(f"/load {tmp_path / 'talk.json'}")
        assert "first" in screen.text and "Yes." in screen.text and "Hm." in screen.text
        assert "2 tokens · 100.0 tok/s" in screen.text

    on_screen(test, ["<think>Hm.</think>", "Yes."])


def test_retry_replaces_the_answer(on_screen):
    async def test(screen):
        await screen.send("first")
        await screen.send("/retry")
        assert "two" in screen.text and "one" not in screen.text
        assert contents(screen) == ["first", "two"]

    on_screen(test, ["one"], ["two"])


def test_errors_and_unknown_commands_are_shown(on_screen):
    async def test(screen):
        await screen.send("/sett")
        assert "no command /sett; did you mean /set?" in screen.text and screen.typed == ""

    on_screen(test)


@pytest.mark.parametrize("leave", ["ctrl+d", "ctrl+q", "/exit"])
def test_leaving(on_screen, leave):
    async def test(screen):
        if leave.startswith("/"):
            await screen.type(leave)
            await screen.pilot.press("escape", "enter")
        else:
            await screen.pilot.press(leave)
        for _ in range(200):
            if screen.app.is_leaving and not screen.app.is_running:
                return
            await screen.pilot.pause(0.02)
        raise AssertionError("it did not leave")

    on_screen(test)


def test_ctrl_c_with_nothing_to_stop_says_how_to_leave(on_screen):
    async def test(screen):
        await screen.type("draft")
        await screen.pilot.press("ctrl+c")
        assert screen.typed == ""
        await screen.pilot.press("ctrl+c")
        await screen.wait(lambda: "Ctrl-D or /exit leaves." in screen.text)

    on_screen(test)


def test_what_the_library_warns_of_is_shown(on_screen):
    log = logging.getLogger("torchless")

    async def test(screen):
        await screen.send("first")
        await screen.wait(lambda: "beware of the dog" in screen.text)
        assert not log.propagate

    propagates = log.propagate
    on_screen(test, [lambda: log.warning("beware of %s", "the dog"), "one"])
    assert log.propagate == propagates


def test_help_by_key(on_screen):
    async def test(screen):
        await screen.pilot.press("f1")
        await screen.wait(lambda: "/discard" in screen.text)

    on_screen(test, size=(100, 60))


def test_a_narrow_screen_leaves_out_what_does_not_fit(on_screen):
    async def test(screen):
        await screen.send("first")
        assert "temperature 0.8" in screen.text.splitlines()[-1]
        assert all(len(line) <= 30 for line in screen.text.splitlines())

    on_screen(test, size=(30, 20))


def test_only_the_web_is_opened(on_screen, monkeypatch):
    opened = []

    async def test(screen):
        from textual.widgets import Markdown

        monkeypatch.setattr(screen.app, "open_url", opened.append)
        await screen.send("x")
        body = screen.app.query_one(Markdown)
        for link in ("https://example.com/", "file:///etc/passwd", "javascript:alert(1)"):
            body.post_message(Markdown.LinkClicked(body, link))
        await screen.wait(lambda: screen.text.count("Not opened") == 2)
        assert opened == ["https://example.com/"]

    on_screen(test, ["[a](https://example.com/)"])
