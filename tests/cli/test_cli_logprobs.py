"""``--logprobs``: a table on stderr, beside a text that stays as it is."""

from __future__ import annotations

import math
import re

import pytest

pytest.importorskip("torchless._core")

OPTIONS = ("--seed", 1, "-n", 6, "Once upon a time")


def test_the_table_names_each_token_and_what_else_was_likely(cli):
    _, plain, _ = cli("run", *OPTIONS)
    status, out, err = cli("run", "--logprobs", 3, *OPTIONS)
    assert (status, out) == (0, plain)
    head, *rows, last = err.splitlines()
    assert head.split() == ["Answer", "log", "prob", "share", "likeliest", "in", "its", "place"]
    assert len(rows) == 6
    total = 0.0
    for row in rows:
        token, logprob, share, top = re.fullmatch(r'(".*?") +(-?[\d.]+) +([\d.]+)%  (.*)', row).groups()
        assert float(share) == pytest.approx(100 * math.exp(float(logprob)), abs=0.02)
        assert top.count("%") == 3 and token.startswith('"')
        total += float(logprob)
    assert float(re.search(r"together (\S+),", last)[1]) == pytest.approx(total, abs=1e-3)
    assert f"perplexity {math.exp(-total / 6):.2f}" in last


def test_the_prompt_has_a_table_too(cli):
    status, _, err = cli("run", "--prompt-logprobs", 0, *OPTIONS)
    assert status == 0
    head, *rows, _ = err.splitlines()
    assert head.startswith("Prompt") and rows[0].startswith('"')
    assert "Answer" not in err


@pytest.mark.parametrize("flag", ["--logprobs", "--prompt-logprobs"])
def test_too_many_are_refused_by_the_name_of_the_flag(cli, flag):
    status, _, err = cli("run", flag, 21, *OPTIONS)
    assert status != 0 and f"{flag} must be a whole number from 0 to 20" in err
