"""``--answers`` and ``--best-of``: several answers on stdout, told apart."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torchless._core")

OPTIONS = ("-n", 12, "--temp", 1, "Once upon a time")


def split(out: str) -> list[str]:
    head, *parts = re.split(r"^--- answer \d of \d ---\n", out, flags=re.MULTILINE)
    assert head == ""
    return parts


def test_answers_are_those_of_their_seeds(cli):
    status, out, _ = cli("run", "--answers", 3, "--seed", 4, *OPTIONS)
    assert status == 0 and re.findall(r"answer (\d) of 3", out) == ["1", "2", "3"]
    assert split(out) == [cli("run", "--seed", 4 + i, *OPTIONS)[1] for i in range(3)]


def test_the_best_is_one_of_them(cli):
    status, out, err = cli("run", "--best-of", 3, "--seed", 4, "--logprobs", 0, *OPTIONS)
    every = [cli("run", "--seed", 4 + i, "--logprobs", 0, *OPTIONS)[1:] for i in range(3)]

    def mean(err: str) -> float:
        return float(re.search(r"together \S+, (\S+) a token", err)[1])

    assert status == 0
    assert (out, err) == max(every, key=lambda answer: mean(answer[1])), "no answer ends early here"


def test_each_has_statistics_and_log_probabilities(cli):
    _, _, err = cli("run", "--answers", 2, "--seed", 4, "--stats", "--logprobs", 1, *OPTIONS)
    assert re.findall(r"seed +(\d+)", err) == ["4", "5"]
    assert re.findall(r"^Answer (\d)", err, flags=re.MULTILINE) == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--answers", 0), "--answers must be a whole number from 1 to 128"),
        (("--answers", 3, "--best-of", 2), "--best-of must be at least n"),
    ],
)
def test_nonsense_is_refused(cli, arguments, message):
    status, _, err = cli("run", *arguments, *OPTIONS)
    assert status != 0 and message in err


@pytest.mark.parametrize("given", ["off", "1.5"])
def test_pacing_changes_no_answer(cli, given):
    words = ["run", "Once upon a time", "--max-tokens", "20", "--seed", "1", "--answers", "2"]
    assert cli(*words, "--pacing", given) == cli(*words)
    status, _, err = cli(*words, "--pacing", "0.5")
    assert status == 2 and "'0.5' is neither 'off' nor a number above 1" in err


def test_banned_text_is_not_written(cli):
    arguments = ("run", "-n", 30, "--temp", 0, "Once upon a time")
    word = cli(*arguments)[1].split()[3]
    status, out, _ = cli(*arguments, "--ban", word, "--ban", "zzz")
    assert status == 0 and word not in out and len(out) > 40


def test_beams_find_a_likelier_answer(cli):
    import torchless

    with torchless.load() as model:
        found = model.beam_search("Once upon a time", beams=3, n=2, max_tokens=12, length_penalty=0.5)
    status, out, err = cli(
        "run", "--beams", 3, "--answers", 2, "--length-penalty", 0.5, "--stats", "-n", 12, "Once upon a time"
    )
    assert status == 0 and split(out) == [f"{one.text}\n" for one in found.choices]
    assert "seed" not in err and "prefill" in err
    for flag in ("no", "yes", "never"):
        assert cli("run", "--beams", 2, "--early-stopping", flag, "-n", 5, "Once")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--beams", 0), "--beams must be a whole number from 1 to 64"),
        (("--beams", 2, "--answers", 3), "n must be at most beams"),
        (("--beams", 2, "--temp", 0.5), "--temp has no meaning beside --beams"),
        (("--beams", 2, "--logprobs", 1), "--logprobs has no meaning beside --beams"),
        (("--length-penalty", 2), "--length-penalty is about a beam search: say --beams N, too"),
        (("--beams", 2, "--length-penalty", "inf"), "--length-penalty must be a finite number"),
    ],
)
def test_beams_that_cannot_be_are_refused(cli, arguments, message):
    status, _, err = cli("run", *arguments, "Once upon a time")
    assert status != 0 and message in err
