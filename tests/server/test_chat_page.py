"""The chat page in a browser, against a real server; where an answer matters, the test says what it is."""

from __future__ import annotations

import json
import threading

import httpx
import pytest
from browsers import chromium, event_stream, until
from servers import running
from slow_steps import slow_steps

from torchless.server import ServerSettings

HOSTILE = """# Title <script>window.hacked = 1</script>

<img src=x onerror="window.hacked = 2"> and [a link](javascript:window.hacked=3) and
[another](https://example.com/ "title") and ![a picture](https://example.com/x.png) <b>bold</b>

```html
<script>window.hacked = 4</script>
```

| a | b |
|---|--:|
| <i>1</i> | 2 |

- one
  - nested **strong** and `code <u>`
- [x] done

1. first
2. second

> quoted <svg onload="window.hacked = 5">

<a href="data:text/html,<script>window.hacked = 6</script>">x</a> <iframe srcdoc="<script>1</script>"></iframe>
"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


class Page:
    """A page of the chat, with what went wrong on it."""

    def __init__(self, context, url):
        self.context, self.url = context, url
        self.page = context.new_page()
        self.faults = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.asked = []  # bodies of questions that were answered by `answers`
        self.open()

    def open(self):
        self.page.goto(self.url)
        until(self.page, "document.querySelector('#model').options.length > 0")

    def answers(self, *bodies):
        """Answers the next questions with these bodies, the last one again and again."""
        left = list(bodies)

        def fulfill(route):
            self.asked.append(json.loads(route.request.post_data))
            body = left.pop(0) if len(left) > 1 else left[0]
            status, body = body if isinstance(body, tuple) else (200, body)
            kind = "text/event-stream" if status == 200 else "application/json"
            route.fulfill(status=status, content_type=kind, body=body)

        self.page.unroute_all()
        self.page.route("**/v1/chat/completions", fulfill)

    def ask(self, text):
        self.page.fill("#question", text)
        self.page.press("#question", "Enter")
        self.page.wait_for_selector("#send:not([hidden])")
        self.page.wait_for_timeout(50)

    def texts(self, selector):
        return [node.inner_text() for node in self.page.query_selector_all(selector)]


@pytest.fixture
def chat(browser, server):
    context = browser.new_context()
    context.set_default_timeout(15_000)
    found = Page(context, server.url)
    yield found
    assert found.faults == []
    context.close()


def test_a_question_is_answered_by_the_model(chat, stories):
    chat.page.click("#open-settings")
    chat.page.fill("#parameter-max_tokens", "12")
    chat.page.fill("#parameter-seed", "1")
    chat.page.fill("#system", "You tell stories.")
    chat.page.click("#settings button:not([type])")
    chat.ask("Tell me a story.")
    (answer,) = chat.texts(".assistant .text")
    messages = [
        {"role": "system", "content": "You tell stories."},
        {"role": "user", "content": "Tell me a story."},
    ]
    expected = stories.chat(messages, max_tokens=12, seed=1).text
    assert " ".join(answer.split()) == " ".join(expected.split())
    assert "12 tokens" in chat.texts(".about")[0] and "tok/s" in chat.texts(".about")[0]
    assert f"of {stories.context_length} tokens" in chat.texts("#context")[0]


def test_stopping_ends_the_work_on_the_server(chat, stories):
    before = stories.metrics().num_cancelled
    with slow_steps(stories):
        chat.page.fill("#question", "Tell me a long story.")
        chat.page.press("#question", "Enter")
        until(chat.page, "document.querySelector('.assistant .text')?.textContent.length > 5")
        chat.page.keyboard.press("Escape")
        chat.page.wait_for_selector("#send:not([hidden])")
        assert "stopped" in chat.texts(".about")[0] and len(chat.texts(".assistant .text")[0]) > 5
        for _ in range(100):
            if stories.metrics().num_cancelled > before:
                return
            chat.page.wait_for_timeout(50)
    raise AssertionError("the request went on")


def test_no_script_of_a_model_ever_runs(chat):
    chat.answers(event_stream(*({"content": HOSTILE[i : i + 7]} for i in range(0, len(HOSTILE), 7))))
    chat.ask("x")
    page = chat.page
    page.wait_for_selector(".assistant table")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    inside = ".assistant .text"
    for forbidden in ("script", "img", "iframe", "svg", "b", "i", "u", "style", "[onerror]", "[onload]"):
        assert page.query_selector_all(f"{inside} {forbidden}") == [], forbidden
    links = page.eval_on_selector_all(f"{inside} a", "nodes => nodes.map(node => [node.href, node.rel])")
    assert links == [
        ["https://example.com/", "noopener noreferrer nofollow"],
        ["https://example.com/x.png", "noopener noreferrer nofollow"],
    ]
    assert chat.texts(f"{inside} h3") == ["Title <script>window.hacked = 1</script>"]
    assert "<img src=x onerror=" in chat.texts(inside)[0]
    assert chat.texts(f"{inside} td") == ["<i>1</i>", "2"]
    assert chat.texts(f"{inside} li strong") == ["strong"] and chat.texts(f"{inside} li code") == ["code <u>"]
    assert len(page.query_selector_all(f"{inside} ol li")) == 2
    assert "<script>window.hacked = 4</script>" in chat.texts(f"{inside} pre")[0]


def test_the_policy_stops_what_would_slip_through(chat):
    chat.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 7";
            document.body.append(script);
        }"""
    )
    assert chat.page.evaluate("window.hacked") is None
    assert len(chat.faults) == 1 and "Content Security Policy" in chat.faults.pop()


def test_code_is_coloured_and_copied(chat):
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.answers(event_stream({"content": "```python\n# why\ndef f(x):\n    return 'a' + str(12)\n```"}))
    chat.ask("x")
    assert chat.texts(".hl-comment") == ["# why"] and chat.texts(".hl-word") == ["def", "return"]
    assert chat.texts(".hl-string") == ["'a'"] and chat.texts(".hl-number") == ["12"]
    chat.page.click("[data-action=copy-code]")
    assert (
        chat.page.evaluate("navigator.clipboard.readText()") == "# why\ndef f(x):\n    return 'a' + str(12)"
    )


def test_reasoning_is_folded_and_not_sent_again(chat):
    chat.answers(event_stream({"reasoning_content": "Hm."}, {"content": "Yes."}))
    chat.ask("first")
    assert "Thought for" in chat.texts(".reasoning summary")[0]
    assert not chat.page.is_visible(".reasoning div")
    chat.page.click(".reasoning summary")
    assert chat.texts(".reasoning div") == ["Hm."]
    chat.ask("second")
    assert [message["content"] for message in chat.asked[1]["messages"]] == ["first", "Yes.", "second"]


def test_how_much_to_think_is_sent_if_it_was_chosen(chat):
    chat.answers(event_stream({"content": "Yes."}))
    chat.ask("first")
    chat.page.click("#open-settings")
    chat.page.select_option("#effort", "high")
    chat.page.fill("#parameter-top_k", "7")
    chat.page.click("#settings button:not([type])")
    chat.ask("second")
    chat.page.click("#open-settings")
    chat.page.click("#reset-parameters")
    chat.page.click("#settings button:not([type])")
    chat.ask("third")
    asked = [(body.get("reasoning_effort"), body.get("top_k")) for body in chat.asked]
    assert asked == [(None, None), ("high", 7), (None, None)]


def test_text_files_go_with_a_question(chat, tmp_path):
    (tmp_path / "notes.md").write_text("Some ``` fence\n")
    (tmp_path / "other.txt").write_text("never sent")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / "large.txt").write_bytes(b"x" * (1 << 20) + b"x")
    chat.answers(event_stream({"content": "Yes."}))
    chat.page.set_input_files("#attach", [tmp_path / "notes.md", tmp_path / "other.txt"])
    chat.page.click("[aria-label='Do not send other.txt']")
    chat.page.set_input_files("#attach", [tmp_path / "picture.png"])
    until(chat.page, "document.querySelector('#announcer').textContent.includes('not text in UTF-8')")
    chat.page.set_input_files("#attach", [tmp_path / "large.txt"])
    until(chat.page, "document.querySelector('#announcer').textContent.includes('more than the 1048576')")
    chat.ask("What is it?")
    assert chat.asked[0]["messages"][0]["content"] == "What is it?\n\nnotes.md:\n````md\nSome ``` fence\n````"
    assert not chat.page.is_visible("#attachments")
    chat.ask("And now?")
    assert chat.asked[1]["messages"][-1]["content"] == "And now?"


def test_questions_are_edited_and_answers_asked_for_again_as_branches(chat):
    chat.answers(*(event_stream({"content": f"answer {number}"}) for number in (1, 2, 3)))
    chat.ask("first")
    chat.page.click(".assistant [aria-label='Answer again']")
    until(chat.page, "document.querySelector('.assistant .text').textContent === 'answer 2'")
    assert "2/2" in chat.texts(".assistant .tools")[0]
    chat.page.click(".assistant [aria-label='Previous version']")
    assert chat.texts(".assistant .text") == ["answer 1"]
    chat.page.press("#question", "ArrowUp")  # in the empty field: changes the last question
    chat.page.fill(".editor textarea", "changed")
    chat.page.press(".editor textarea", "Enter")
    until(chat.page, "document.querySelector('.assistant .text')?.textContent === 'answer 3'")
    assert chat.asked[2]["messages"] == [{"role": "user", "content": "changed"}]
    chat.page.click(".user [aria-label='Previous version']")
    assert chat.texts(".user .text") == ["first"] and chat.texts(".assistant .text") == ["answer 2"]


def test_conversations_are_kept_found_and_deleted(chat):
    chat.answers(event_stream({"content": "An apple."}), event_stream({"content": "A pear."}))
    chat.ask("Which fruit?")
    chat.page.keyboard.press("Alt+n")
    assert chat.texts(".message") == []
    chat.ask("And which other?")
    chat.open()
    assert chat.texts("#conversations .open") == ["And which other?", "Which fruit?"]
    chat.page.fill("#search", "apple")
    assert chat.texts("#conversations .open") == ["Which fruit?"]
    chat.page.click("#conversations .open")
    assert chat.texts(".assistant .text") == ["An apple."]
    chat.page.hover("#conversations li")
    chat.page.click("[aria-label='Delete Which fruit?']")
    until(chat.page, "document.querySelectorAll('#conversations li').length === 0")
    chat.page.fill("#search", "")
    assert chat.texts("#conversations .open") == ["And which other?"] and chat.texts(".message") == []


def test_conversations_are_exported_and_imported(chat, tmp_path):
    chat.answers(event_stream({"content": "An apple."}))
    chat.ask("Which fruit?")
    chat.page.click("#open-settings")
    with chat.page.expect_download() as download:
        chat.page.click("#export")
    download.value.save_as(tmp_path / "all.json")
    chat.page.click("#delete-all")
    until(chat.page, "document.querySelectorAll('#conversations li').length === 0")
    chat.page.set_input_files("#import", tmp_path / "all.json")
    until(chat.page, "document.querySelectorAll('#conversations li').length === 1")
    content = json.loads((tmp_path / "all.json").read_text())
    (messages,) = [conversation["messages"] for conversation in content["conversations"]]
    first, second = messages.values()
    first["parent"], second["parent"] = second["id"], first["id"]
    (tmp_path / "circle.json").write_text(json.dumps(content))
    refused = []
    chat.page.on("dialog", lambda dialog: refused.append(dialog.message))
    chat.page.set_input_files("#import", tmp_path / "circle.json")
    chat.page.wait_for_timeout(300)
    assert refused == ["circle.json cannot be imported: its messages follow each other in a circle"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ((400, '{"error": {"message": "the prompt has 99 tokens"}}'), "the prompt has 99 tokens"),
        ('data: {"error": {"message": "it broke"}}\n\n', "it broke"),
        ('data: {"choices": [{"delta": {"content": "par"}}]}\n\n', "broke off"),
    ],
)
def test_failures_are_told_and_can_be_tried_again(chat, body, message):
    chat.answers(body, event_stream({"content": "fine"}))
    chat.ask("first")
    assert message in chat.texts(".assistant .error")[0]
    chat.page.click(".assistant [aria-label='Answer again']")
    until(chat.page, "document.querySelector('.assistant .text').textContent === 'fine'")
    assert chat.asked[1]["messages"] == [{"role": "user", "content": "first"}]
    chat.faults = [fault for fault in chat.faults if "status of 400" not in fault]


def test_a_key_is_asked_for_and_kept(browser, stories):
    with running(stories, ServerSettings(api_keys=("secret",))) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("#settings[open]")
        page.fill("#api-key", "secret")
        page.press("#api-key", "Tab")
        until(page, "document.querySelector('#model').options.length > 0")
        page.reload()
        until(page, "document.querySelector('#model').options.length > 0")
        assert not page.is_visible("#settings")
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_have_contrast(browser, server, scheme):
    context = browser.new_context(color_scheme=scheme)
    chat = Page(context, server.url)
    chat.answers(
        event_stream({"reasoning_content": "Hm."}, {"content": "`code` [a](https://a.example) text"})
    )
    chat.ask("x")
    assert chat.page.evaluate("document.documentElement.dataset.theme") == scheme
    for selector in (
        ".hint",
        ".assistant .text",
        ".text code",
        ".text a",
        ".about",
        "#send",
        ".reasoning summary",
    ):
        assert chat.page.evaluate(CONTRAST, selector) >= 4.5, selector
    chat.page.click("#open-settings")
    other = "dark" if scheme == "light" else "light"
    chat.page.select_option("#theme", other)
    assert chat.page.evaluate("document.documentElement.dataset.theme") == other
    context.close()


CONTRAST = """selector => {
    const luminance = ([r, g, b]) => {
        const linear = v => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const [x, y, z] = [r, g, b].map(v => linear(v / 255));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const parse = color => color.match(/[\\d.]+/g).map(Number);
    const node = document.querySelector(selector);
    let behind = node;
    while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const ink = luminance(parse(getComputedStyle(node).color));
    const paper = luminance(parse(getComputedStyle(behind).backgroundColor));
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}"""


def test_a_phone_shows_the_list_on_demand_and_nothing_is_wider_than_it(browser, server):
    context = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    chat = Page(context, server.url)
    wide = "x" * 300
    chat.answers(
        event_stream({"content": f"{wide}\n\n```\n{wide}\n```\n\n| {wide} | b |\n|---|---|\n| 1 | 2 |"})
    )
    chat.ask(wide)
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert chat.page.evaluate("document.querySelector('#log').scrollWidth") <= 360
    assert not chat.page.is_visible("#new-chat")
    chat.page.tap("#open-sidebar")
    assert chat.page.is_visible("#new-chat")
    assert chat.page.get_attribute("#open-sidebar", "aria-expanded") == "true"
    chat.page.tap("#new-chat")
    chat.page.wait_for_selector("#new-chat", state="hidden")
    context.close()


def test_everything_that_can_be_pressed_has_a_name_and_the_keyboard_reaches_it(chat):
    chat.answers(event_stream({"content": "```\ncode\n```"}))
    chat.ask("x")
    nameless = chat.page.eval_on_selector_all(
        "button, input, select, textarea, a",
        """nodes => nodes.filter(node => !(node.textContent.trim() || node.getAttribute("aria-label")
            || (node.labels && node.labels.length))).map(node => node.outerHTML)""",
    )
    assert nameless == []
    seen = set()
    for _ in range(40):
        chat.page.keyboard.press("Tab")
        seen.add(chat.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {
        "new-chat",
        "search",
        "model",
        "open-settings",
        "question",
        "send",
        "Edit",
        "Again",
        "Copy",
    } <= seen
    chat.page.keyboard.press("Escape")
    chat.page.click("#log", position={"x": 5, "y": 5})
    chat.page.keyboard.press("?")
    assert chat.page.is_visible("#help")
    chat.page.keyboard.press("Escape")
    assert not chat.page.is_visible("#help")
    chat.page.click("#log", position={"x": 5, "y": 5})
    chat.page.keyboard.press("/")
    assert chat.page.evaluate("document.activeElement.id") == "question"


def test_the_dashboard_shows_what_the_server_does(browser, server, stories):
    context = browser.new_context()
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(server.url + "/dashboard")
    page.wait_for_selector("#speed svg path", state="attached")
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, "seed": 1}
    assert httpx.post(server.url + "/v1/chat/completions", json=body, timeout=60).status_code == 200
    total = f"{stories.metrics().num_generated_tokens} tokens written"
    until(page, "text => document.querySelector('#speed').textContent.includes(text)", total)
    assert page.inner_text("#queue .figure") == "0 under way, 0 waiting"
    assert page.inner_text("#pages .figure").endswith(f"of {stories.metrics().num_pages} pages")
    assert "first token" in page.inner_text("#latency") and page.query_selector("#batch rect.bar")
    labels = page.eval_on_selector_all(
        ".picture svg", "nodes => nodes.map(node => node.getAttribute('aria-label'))"
    )
    assert len(labels) >= 6 and all(labels)
    see_a_request_under_way(page, server, stories)
    until(page, "document.querySelector('#live .figure').textContent === '0 requests'")
    page.click("#pause")
    assert page.get_attribute("#pause", "aria-pressed") == "true"
    assert faults == []
    context.close()


def see_a_request_under_way(page, server, stories):
    """Holds a request in the middle, and looks at it."""
    may_go = threading.Event()

    def wait(ids, logits):
        if len(ids) > 12:
            may_go.wait(20)

    future = stories.submit("Once upon a time", max_tokens=30, ignore_eos=True, processors=(wait,))
    try:
        until(page, "document.querySelector('#live .figure').textContent === '1 request'")
        assert page.query_selector("#live rect.fill.answer") and page.query_selector("#live rect.fill.prompt")
        (found,) = httpx.get(server.url + "/dashboard/batch").json()["models"][0]["sequences"]
        num_prompt_tokens = len(stories.tokenizer.encode("Once upon a time"))
        assert found["num_prompt_tokens"] == num_prompt_tokens and found["num_generated_tokens"] >= 7
        assert found["max_tokens"] == num_prompt_tokens + 30
    finally:
        may_go.set()
        future.result()


def test_the_dashboard_asks_for_a_key(browser, stories):
    with running(stories, ServerSettings(api_keys=("secret",))) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url + "/dashboard")
        page.wait_for_selector("#key-form:not([hidden])")
        page.fill("#key", "secret")
        page.press("#key", "Enter")
        page.wait_for_selector("#speed svg path", state="attached")
        context.close()
