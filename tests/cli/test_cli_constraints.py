"""`torchless run` and `chat` with a schema, an expression, a grammar or choices: stdout has text that matches."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("llguidance")

SCHEMA = '{"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 6}, "minItems": 2, "maxItems": 2}'


def test_run_writes_json_that_is_valid_under_a_schema(cli, tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(SCHEMA)
    for given in (SCHEMA, file):
        for flag in ("--json-schema", "-j"):
            status, out, _ = cli("run", "--seed", 1, flag, given, "Two dice:")
            assert status == 0
            assert len(json.loads(out)) == 2 and all(1 <= number <= 6 for number in json.loads(out))


def test_run_follows_grammars_expressions_and_choices(cli, tmp_path):
    file = tmp_path / "list.gbnf"
    file.write_text('root ::= "- " [a-z]{3} "\\n- " [a-z]{3}')
    assert re.fullmatch(r"- [a-z]{3}\n- [a-z]{3}\n", cli("run", "--grammar", file, "Once")[1])
    assert re.fullmatch(r"[ab]{3}\n", cli("run", "--grammar", "root ::= [ab]{3}", "Once")[1])
    assert re.fullmatch(r"[ab]{3}\n", cli("run", "--grammar", "start: /[ab]{3}/", "Once")[1])
    assert re.fullmatch(r"\d\d:\d\d\n", cli("run", "--regex", r"\d\d:\d\d", "Once")[1])
    assert cli("run", "--choice", "yes", "--choice", "no", "Once")[1] in ("yes\n", "no\n")
    assert cli("run", "--json", "-n", 3, "Once")[1].startswith("{")


def test_chat_answers_every_question_in_the_form_asked_for(cli):
    status, out, _ = cli("chat", "--choice", "Yes.", "--choice", "No.", stdin=b"Is it late?\nReally?\n")
    assert status == 0 and re.fullmatch(r"(?:(?:Yes|No)\.\n){2}", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-j", '{"not": {}}'], "schema at /not: "),
        (["-j", "no-such-file.json"], "no-such-file.json"),
        (["--grammar", "no-such-file"], "no-such-file"),
        (["--grammar", "root ::= x"], "refers to x"),
        (["--regex", "("], "regex: "),
    ],
)
def test_what_cannot_be_enforced_is_said_before_a_model_is_loaded(cli, arguments, message, monkeypatch):
    import torchless

    monkeypatch.setattr(torchless, "load", None, raising=False)
    status, out, err = cli("run", *arguments, "Once")
    assert (status, out) == (1, "") and message in err


def test_two_forms_at_once_are_refused(cli):
    status, _, err = cli("run", "--json", "--regex", "a", "Once")
    assert status == 2 and "--json and --regex" in err
