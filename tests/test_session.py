"""Conversations that are remembered, saved, forked, and cut where they outgrow the context."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import torchless
from torchless.chat.context_shift import answer_room, fitting, without_oldest

pytest.importorskip("torchless._core")

QUESTIONS = [
    "Tell me a story about a dog and a red ball.",
    "What did the dog do with the ball then?",
    "And was mom happy when they came home?",
    "Tell me more about the park and the big tree.",
]


def ask(session: torchless.Session, number: int, **options: object) -> torchless.Completion:
    return session.send(QUESTIONS[number % 4], max_tokens=16, seed=number, logits_hash=True, **options)


@pytest.fixture(scope="module")
def model():
    with torchless.load(ctx=512) as llm:
        yield llm


def test_every_turn_gets_all_that_was_said_and_computes_what_is_new(model: torchless.LLM) -> None:
    session = model.session(system="You tell stories.", temperature=0.5)
    for number in range(3):
        told = [*session.messages, {"role": "user", "content": QUESTIONS[number]}]
        found = ask(session, number)
        expected = model.chat(told, temperature=0.5, max_tokens=16, seed=number, logits_hash=True)
        assert (found.text, found.logits_hash) == (expected.text, expected.logits_hash)
        assert session.messages == [*told, {"role": "assistant", "content": found.text}]
        assert found.num_dropped_messages == 0
    assert found.usage.num_cached_tokens >= found.usage.num_prompt_tokens // 2


def test_a_fork_goes_on_by_itself_and_shares_what_was_computed(model: torchless.LLM) -> None:
    session = model.session()
    ask(session, 0)
    ask(session, 1)
    fork = session.fork()
    before = session.messages
    found = ask(fork, 2)
    assert session.messages == before and fork.messages[:-2] == before
    assert found.usage.num_cached_tokens >= 32
    assert ask(session, 2).logits_hash == found.logits_hash
    assert fork.messages == session.messages


def test_a_saved_conversation_goes_on_after_a_restart_without_computing_it_again(tmp_path: Path) -> None:
    options = {"ctx": 512, "prefix_cache_dir": tmp_path / "cache"}
    with torchless.load(**options) as llm:
        session = llm.session(system="You tell stories.", top_k=7)
        ask(session, 0)
        ask(session, 1)
        session.save(tmp_path / "talk.json")
        expected = ask(session.fork(), 2)
    assert json.loads((tmp_path / "talk.json").read_text())["messages"] == session.messages
    with torchless.load(**options) as llm:
        again = llm.session().load(tmp_path / "talk.json")
        assert again.messages == session.messages and again.conversation.params.top_k == 7
        found = ask(again, 2)
        assert llm.metrics().num_restored_tokens == found.usage.num_cached_tokens >= 64
    assert found.logits_hash == expected.logits_hash


def test_what_fails_was_never_asked(model: torchless.LLM, tmp_path: Path) -> None:
    session = model.session()
    ask(session, 0)
    before = session.messages
    with pytest.raises(torchless.ContextLengthError):
        session.send("a dog and a ball " * 300)
    with pytest.raises(TypeError):
        session.send("Hello", temprature=1)
    with pytest.raises(torchless.InvalidRequestError, match="goes on with one answer, but n is 2"):
        session.send("Hello", n=2)
    with pytest.raises(torchless.InvalidRequestError, match="expected a conversation saved before"):
        session.load(tmp_path / "none.json")
    assert session.messages == before


def test_an_answer_that_is_not_read_to_its_end_is_kept_as_far_as_it_came(model: torchless.LLM) -> None:
    session = model.session()
    pieces = session.stream(QUESTIONS[0], max_tokens=30, seed=1, ignore_eos=True)
    text = next(pieces).text + next(pieces).text
    pieces.close()
    assert session.messages[-1] == {"role": "assistant", "content": text}
    unread = session.stream("Hello")
    unread.close()  # before it began
    assert len(session.messages) == 2


def test_a_long_conversation_leaves_out_its_oldest_turns_and_says_so() -> None:
    with torchless.load(ctx=160) as llm:
        session = llm.session(system="You tell stories.", context_shift=True)
        dropped = []
        for number in range(12):
            found = ask(session, number)
            assert found.num_dropped_messages == session.num_dropped_messages
            dropped.append(found.num_dropped_messages)
            told = without_oldest(session.messages[:-1], dropped[-1])
            assert told[0]["role"] == "system" and told[1]["role"] == "user"
            alone = llm.chat(told, max_tokens=16, seed=number, logits_hash=True)
            assert alone.logits_hash == found.logits_hash
        assert dropped[0] == 0 < dropped[-1] and dropped == sorted(dropped)
        assert len(set(dropped)) < 8, "several turns begin alike before the next ones go"
        assert len(session.messages) == 25, "nothing is forgotten, only not told"
        strict = llm.session()
        with pytest.raises(torchless.ContextLengthError):
            for number in range(12):
                ask(strict, number)


turns = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12)


@given(turns, st.booleans(), st.integers(20, 200), st.integers(0, 30))
def test_what_is_left_begins_with_a_question_and_fits_if_anything_does(
    turns: list[tuple[int, int]], has_system: bool, most: int, before: int
) -> None:
    talk = [{"role": "system", "content": "s" * 5}] * has_system
    for question, answer in turns:
        talk += [{"role": "user", "content": "q" * question}, {"role": "assistant", "content": "a" * answer}]
    talk.pop()  # the last question has no answer yet

    def count(messages: list[dict[str, str]]) -> int:
        return sum(len(message["content"]) for message in messages)

    before = min(before // 2 * 2, len(talk))
    number = fitting(talk, before, most, count)
    left = without_oldest(talk, number)
    assert left[-1] == talk[-1] and left[:has_system] == talk[:has_system]
    assert left[has_system]["role"] == "user"
    assert count(left) <= most or len(left) == has_system + 1
    if before < len(talk) - has_system:
        assert number >= before
        kept = without_oldest(talk, before)
        assert (number > before) == (count(kept) > most and len(kept) > has_system + 1)


def test_room_for_an_answer() -> None:
    assert answer_room(100, None) == answer_room(100, 60) == 25 and answer_room(100, 10) == 10


def test_the_command_line_shifts_only_if_asked() -> None:
    def chat(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torchless", "chat", "-c", "160", "-n", "16", "--seed", "1", *flags]
        lines = "\n".join(QUESTIONS * 3)
        return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120)

    strict, shifting = chat(), chat("--context-shift")
    assert strict.returncode == 1 and "the conversation has grown" in strict.stderr
    assert shifting.returncode == 0, shifting.stderr
    refused = chat("--context-shift", "--url", "http://localhost:1")
    assert refused.returncode != 0 and "--context-shift has no meaning beside --url" in refused.stderr
