"""Calls of tools and reasoning read out of answers, in every style, however the text is cut into pieces."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from torchless.server.harmony import HarmonyReader
from torchless.server.parts import Note, PlainReader, Reasoning, Text, ToolCall
from torchless.server.reasoning import ThinkReader
from torchless.server.tool_reader import ToolReader
from torchless.server.tool_styles import find_style, styles
from torchless.text.reasoning import ReasoningStyle, known_style

SCHEMAS = {
    "weather": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    "stop": {},
}
ARGUMENTS = {"city": 'Os"lo }</tool_call>', "days": 3}
CALL = json.dumps({"name": "weather", "arguments": ARGUMENTS})
LLAMA = CALL.replace('"arguments"', '"parameters"')
DEEPSEEK = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
V3 = DEEPSEEK.replace("{}", "function<｜tool▁sep｜>weather\n```json\n{}\n```")
V31 = DEEPSEEK.replace("{}", "weather<｜tool▁sep｜>{}")
XML = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
    "</function>\n</tool_call>"
)
GLM = (
    "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
    "<arg_value>3</arg_value>\n</tool_call>"
)
OSLO = {"city": "Oslo", "days": 3}
BODY = json.dumps(ARGUMENTS)

# style, text, text around the calls, arguments of each call
GOOD = [
    ("hermes", f"<tool_call>\n{CALL}\n</tool_call>", "", [ARGUMENTS]),
    (
        "hermes",
        f"Let me see.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>\n",
        "Let me see.\n",
        [ARGUMENTS] * 2,
    ),
    ("tagged", XML, "", [OSLO]),
    ("tagged", GLM, "", [OSLO]),
    ("llama3", LLAMA, "", [ARGUMENTS]),
    ("llama3", f"<|python_tag|>{LLAMA}; {LLAMA}", "", [ARGUMENTS] * 2),
    ("mistral", f"[TOOL_CALLS] [{CALL}, {CALL}]", "", [ARGUMENTS] * 2),
    ("mistral", f"Wait.[TOOL_CALLS]weather[ARGS]{BODY}[TOOL_CALLS]weather{BODY}", "Wait.", [ARGUMENTS] * 2),
    ("mistral", f"[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{BODY}", "", [ARGUMENTS]),
    ("granite", f"<|tool_call|>[{CALL}]", "", [ARGUMENTS]),
    ("granite", f"<tool_call>[{CALL}]", "", [ARGUMENTS]),
    ("deepseek", V3.replace("{}", BODY), "", [ARGUMENTS]),
    ("deepseek", "So: " + V31.replace("{}", BODY), "So: ", [ARGUMENTS]),
    ("phi", f"<|tool_call|>[{CALL}]<|/tool_call|>", "", [ARGUMENTS]),
    ("phi", f'<|tool_call|>[{{"type": "function", "function": {CALL}}}]<|/tool_call|>', "", [ARGUMENTS]),
    ("plain", CALL, "", [ARGUMENTS]),
    ("plain", f"```json\n{CALL}\n```", "", [ARGUMENTS]),
    (
        "gpt-oss",
        f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{BODY}",
        "",
        [ARGUMENTS],
    ),
    ("gpt-oss", f" to=functions.weather<|channel|>commentary json<|message|>{BODY}<|call|>", "", [ARGUMENTS]),
    ("gpt-oss", "<|channel|>final<|message|>Hello", "Hello", []),
    *[
        (style, "Just text, a < b and {} too.", "Just text, a < b and {} too.", [])
        for style in (
            "hermes",
            "tagged",
            "llama3",
            "mistral",
            "granite",
            "deepseek",
            "phi",
            "plain",
            "gpt-oss",
        )
    ],
    ("llama3", '{"city": "Oslo"}', '{"city": "Oslo"}', []),
    ("plain", '{"a": 1', '{"a": 1', []),
]


def named(name):
    (style,) = [style for style in styles() if style.name == name]
    return style


def reader_of(style):
    return style.make_reader(SCHEMAS) if style.make_reader else ToolReader(style, SCHEMAS)


def read(reader, text, random_cuts=None):
    """All parts: neighbours of one kind joined."""
    pieces = [text]
    if random_cuts is not None:
        cuts = sorted({0, len(text), *(random_cuts.randrange(len(text) + 1) for _ in range(len(text) // 3))})
        pieces = [text[a:b] for a, b in itertools.pairwise(cuts)]
    parts = [part for piece in pieces for part in reader.push(piece)] + reader.finish()
    texts = "".join(part.text for part in parts if isinstance(part, Text))
    thoughts = "".join(part.text for part in parts if isinstance(part, Reasoning))
    calls = [part for part in parts if isinstance(part, ToolCall)]
    notes = [part.text for part in parts if isinstance(part, Note)]
    return texts, thoughts, calls, notes


@pytest.mark.parametrize(("name", "text", "around", "arguments"), GOOD)
def test_calls_are_read_however_the_text_is_cut(name, text, around, arguments):
    for seed in (None, *range(20)):
        cuts = None if seed is None else random.Random(seed)
        texts, _, calls, notes = read(reader_of(named(name)), text, cuts)
        assert texts == around and not notes
        assert [json.loads(call.arguments) for call in calls] == arguments
        assert {call.name for call in calls} <= {"weather"}
        assert len({call.call_id for call in calls}) == len(calls)


BAD = [
    ("hermes", '<tool_call>\n{"name": "weather", "arguments": {"city": </tool_call>'),
    ("hermes", '<tool_call>\n{"name": "thunder", "arguments": {}}\n</tool_call> then'),
    ("hermes", '<tool_call>\n{"name": "weather", "argum'),
    ("hermes", '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>'),
    ("tagged", "<tool_call><function=thunder></function></tool_call>"),
    ("tagged", "<tool_call><function=weather>city is Oslo</function></tool_call>"),
    ("llama3", '{"name": "weather", "parameters": {"city": '),
    ("mistral", '[TOOL_CALLS][{"name": "weather"'),
    ("mistral", "[TOOL_CALLS]weather[ARGS]{]"),
    ("granite", "<|tool_call|>weather please"),
    ("deepseek", "<｜tool▁calls▁begin｜>weather<｜tool▁calls▁end｜>"),
    ("phi", "<|tool_call|><|/tool_call|>"),
    ("plain", '{"name": "thunder", "arguments": {}}'),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_call_that_cannot_be_read_stays_text_with_a_note(name, text):
    for seed in (None, *range(10)):
        cuts = None if seed is None else random.Random(seed)
        texts, _, calls, notes = read(reader_of(named(name)), text, cuts)
        assert texts == text and not calls
        assert len(notes) == 1 and "could not be read" in notes[0]


def test_a_harmony_call_that_cannot_be_read_keeps_its_arguments_as_text():
    texts, _, calls, notes = read(
        HarmonyReader(SCHEMAS), "<|channel|>commentary to=functions.weather<|message|>{oops<|call|>"
    )
    assert texts == "{oops" and not calls and "weather" in notes[0]


def test_random_texts_never_fail_and_lose_nothing():
    random_words = random.Random(1)
    words = ["<tool_call>", "</tool_call>", "{", "}", '"name"', ":", '"weather"', "[TOOL_CALLS]", "```json", "\n",
             "<|channel|>", "<|message|>", "<|end|>", "<think>", "</think>", "[", "]", "a", " ", "\\", '"']  # fmt: skip
    for style in styles():
        for _ in range(200):
            text = "".join(random_words.choices(words, k=random_words.randrange(30)))
            texts, thoughts, calls, _ = read(reader_of(style), text, random_words)
            if style.name != "gpt-oss" and not calls:
                assert texts == text
            assert isinstance(thoughts, str)


def test_one_call_where_they_may_not_be_parallel():
    text = f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>"
    _, _, calls, notes = read(ToolReader(named("hermes"), SCHEMAS, parallel=False), text)
    assert len(calls) == 1 and "parallel_tool_calls" in notes[0]


# -- reasoning ------------------------------------------------------------------------------------

MARKS = ReasoningStyle("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "is_open", "thought", "answer"),
    [
        ("<think>\nHm, so.\n\nYes.\n</think>\n\nHello", False, "Hm, so.\n\nYes.", "Hello"),
        ("Hm.\n</think>\n\nHello", True, "Hm.", "Hello"),
        ("Hm. I never end", True, "Hm. I never end", ""),
        ("Hello <think>no</think>", False, "", "Hello <think>no</think>"),
        ("\n<think></think>Hi", False, "", "Hi"),
        ("<thin", False, "", "<thin"),
        ("", False, "", ""),
    ],
)
def test_reasoning_is_split_off(text, is_open, thought, answer):
    for seed in (None, *range(20)):
        reader = ThinkReader(PlainReader(), MARKS, is_open=is_open)
        cuts = None if seed is None else random.Random(seed)
        texts, thoughts, _, _ = read(reader, text, cuts)
        assert (thoughts, texts) == (thought, answer)


def test_reasoning_and_calls_come_together():
    reader = ThinkReader(ToolReader(named("hermes"), SCHEMAS), MARKS, is_open=False)
    texts, thoughts, calls, _ = read(reader, f"<think>A call?</think>\n\nYes.\n<tool_call>{CALL}</tool_call>")
    assert (thoughts, texts, len(calls)) == ("A call?", "Yes.\n", 1)


def test_channels_are_reasoning_and_answer():
    text = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        f"<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{BODY}<|call|>"
    )
    for seed in (None, *range(20)):
        cuts = None if seed is None else random.Random(seed)
        texts, thoughts, calls, _ = read(HarmonyReader(SCHEMAS), text, cuts)
        assert (thoughts, texts) == ("Hm.", "I look.")
        assert [json.loads(call.arguments) for call in calls] == [ARGUMENTS]


# -- styles of real templates ---------------------------------------------------------------------

STYLE_OF = {
    "Qwen/Qwen2.5-7B-Instruct": "hermes",
    "Qwen/Qwen3-0.6B": "hermes",
    "NousResearch/Hermes-2-Pro-Llama-3-8B (JSON Schema)": "hermes",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3",
    "mistralai/Mistral-Nemo-Instruct-2407": "mistral",
    "CISCai/Mistral-7B-Instruct-v0.3-SOTA-GGUF": "mistral",
    "deepseek-ai/DeepSeek-R1": "deepseek",
    "zai-org/GLM-5.1": "tagged",
    "HuggingFaceH4/zephyr-7b-gemma-v0.1": "plain",
}


@pytest.mark.parametrize("model", STYLE_OF)
def test_the_style_is_found_in_published_templates(model, shared_data):
    templates = json.loads((shared_data("chat-templates") / "renderings.json").read_text(encoding="utf-8"))
    template = templates["custom"][model]["chat_template"]
    assert find_style(template).name == STYLE_OF[model]
    assert find_style(None).name == "plain"
    wanted = MARKS if model in ("Qwen/Qwen3-0.6B", "deepseek-ai/DeepSeek-R1", "zai-org/GLM-5.1") else None
    assert known_style(template) == wanted


@pytest.mark.parametrize("model", [name for name, style in STYLE_OF.items() if style not in ("plain",)])
def test_what_a_published_template_writes_is_read_back(model, shared_data):
    from torchless.text.chat_template import ChatTemplate

    templates = json.loads((shared_data("chat-templates") / "renderings.json").read_text(encoding="utf-8"))
    template = ChatTemplate(templates["custom"][model]["chat_template"], "<s>", "</s>")
    question = {"role": "user", "content": "The weather in Oslo?"}
    arguments = OSLO if model != "deepseek-ai/DeepSeek-R1" else json.dumps(OSLO)
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    tools = [
        {
            "type": "function",
            "function": {"name": "weather", "description": "", "parameters": SCHEMAS["weather"]},
        }
    ]
    before = template.render([question], tools, add_generation_prompt=True)
    after = template.render([question, answer], tools, add_generation_prompt=False)
    style = find_style(templates["custom"][model]["chat_template"])
    written = after[len(before) if after.startswith(before) else after.rindex("Oslo?") + 5 :]
    calls = [part for part in _parts_from_first_mark(style, written) if isinstance(part, ToolCall)]
    assert [(item.name, json.loads(item.arguments)) for item in calls] == [("weather", OSLO)]


def _parts_from_first_mark(style, text):
    """The parts of a text from the first mark of a call on, without what ends the model's turn."""
    text = text[min(text.index(mark) for mark in style.begins if mark in text) :]
    for end in ("<|im_end|>", "<|eot_id|>", "</s>", "<｜end▁of▁sentence｜>", "<|observation|>"):
        text = text.split(end)[0]
    reader = ToolReader(style, SCHEMAS)
    return [*reader.push(text), *reader.finish()]
