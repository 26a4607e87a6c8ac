"""`torchless run` with a fake model: what it asks the model for, and what it prints where."""

from __future__ import annotations

import json
import sys

import pytest

from torchless.cli import statistics
from torchless.cli.answers import ANSWER_OPTIONS
from torchless.cli.model_options import LOAD_OPTIONS
from torchless.cli.prefix_cache_options import PREFIX_CACHE_OPTIONS
from torchless.cli.sampling_options import SAMPLING_OPTIONS
from torchless.cli.speculative_options import SPECULATIVE_OPTIONS
from torchless.errors import ContextLengthError
from torchless.sampling.parameters import SamplingParams


def test_stdout_gets_the_text_and_nothing_else(cli, fake_llm):
    fake_llm(["Hel", "lo ", "🙂"])
    assert cli("run", "Hi") == (0, "Hello 🙂\n", "")


def test_a_text_that_ends_its_line_gets_no_second_line_end(cli, fake_llm):
    fake_llm(["Hello\n"])
    assert cli("run", "Hi")[1] == "Hello\n"


def test_an_empty_answer_prints_nothing(cli, fake_llm):
    fake_llm([])
    assert cli("run", "Hi") == (0, "", "")


def test_text_is_written_as_it_comes(cli, fake_llm, monkeypatch):
    """Each piece is on stdout before the next one is computed."""
    seen = []

    def pieces():
        yield "one"
        seen.append(sys.stdout.getvalue())
        yield " two"
        seen.append(sys.stdout.getvalue())

    class Recorder:
        encoding = "utf-8"

        def __init__(self):
            self.written, self.flushed = "", ""

        def write(self, text):
            self.written += text

        def flush(self):
            self.flushed = self.written

        def isatty(self):
            return False

        def getvalue(self):
            return self.flushed

    llm = fake_llm()
    llm._chunks_of = pieces
    monkeypatch.setattr(llm, "answers", [pieces()])
    monkeypatch.setattr(sys, "stdout", Recorder())
    cli("run", "Hi")
    assert seen == ["one", "one two"]


def test_options_reach_the_model_under_all_their_names(cli, fake_llm, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    forms = [
        ["-c", "128", "-t", "2", "-b", "32", "--kv-type", "bf16", "--backend", "reference"],
        ["--ctx-size", "128", "--threads", "2", "-ub", "32", "--kv-dtype", "BF16", "--backend=reference"],
        ["--max-seq-len", "128", "--num-threads", "2", "--batch-size", "32", "--kv-cache-dtype", "bf16"],
    ]
    for form in forms:
        llm = fake_llm(has_template=True)
        assert cli("run", "-m", "m.gguf", "--chat-template-file", template, "-p", "Hi", *form)[0] == 0
        loaded = llm.loaded_with
        assert loaded["model"] == "m.gguf" and loaded["chat_template"] == "{{ messages }}"
        assert (loaded["ctx"], loaded["threads"], loaded["batch_tokens"], loaded["kv"]) == (
            128,
            2,
            32,
            "bf16",
        )


def test_keys_and_values_may_be_cached_in_two_types(cli, fake_llm):
    both = ["--kv-type", "k=Q8_0,v=f16"]
    for flags in (both, ["-ctk", "q8_0"], ["--kv-type-k", "q8_0"], ["--kv-type", "q8_0", "-ctv", "f16"]):
        llm = fake_llm()
        assert cli("run", "Hi", *flags)[0] == 0
        assert llm.loaded_with["kv"] == "k=q8_0,v=f16"
    for wrong in ("q5_0", "k=q8_0", "k=f16,v=f16,v=f16", "a=f16,v=f16", ""):
        status, _, error = cli("run", "Hi", "--kv-type", wrong)
        assert status == 2 and "k=q8_0,v=f16" in error


def test_contexts_may_be_given_in_thousands(cli, fake_llm):
    for text, expected in (("8k", 8192), ("auto", "auto"), ("0", "auto"), ("-1", "auto")):
        llm = fake_llm()
        assert cli("run", "Hi", "--ctx", text)[0] == 0
        assert llm.loaded_with["ctx"] == expected
    assert cli("run", "Hi", "--ctx", "lots")[0] == 2


@pytest.mark.parametrize(
    "form",
    [
        "-n 5 --temp 0 --top-k 0 --top-p 1 --min-p 0 --repeat-penalty 1.5 --repeat-last-n -1 -s 0",
        "--predict 5 --temperature 0.0 --top-k 0 --top-p 1 --min-p 0 --repetition-penalty 1.5 "
        "--repeat-last-n -1 --seed 0",
        "--n-predict 5 --temp 0 --top-k 0 --top-p 1 --min-p 0 --repeat-penalty 1.5 "
        "--repetition-context-size -1 --seed 0",
    ],
)
def test_sampling_options_reach_the_model(cli, fake_llm, form):
    llm = fake_llm()
    assert cli("run", "Hi", *form.split())[0] == 0
    keywords = llm.requests[0][2]
    assert keywords.pop("logits_hash") is False
    assert keywords == {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.5,
        "repeat_last_n": -1,
        "seed": 0,
    }


def test_only_what_the_user_set_is_passed_on(cli, fake_llm):
    """So that the model's own recommendations hold for the rest."""
    llm = fake_llm()
    cli("run", "Hi", "-n", "-1", "--seed", "-1")  # both mean: no value
    assert llm.requests[0][2] == {"logits_hash": False}


def test_lists_and_flags_reach_the_model(cli, fake_llm):
    llm = fake_llm()
    stops = ["--stop", "END", "-r", "\n\n"]
    biases = [
        "--logit-bias",
        "42=-1.5",
        "--logit-bias",
        "7=-inf",
        "--logit-bias",
        "9+2",
        "--logit-bias",
        "8-2",
    ]
    assert cli("run", "Hi", *stops, *biases, "--ignore-eos")[0] == 0
    keywords = llm.requests[0][2]
    assert keywords["stop"] == ("END", "\n\n") and keywords["ignore_eos"] is True
    assert keywords["logit_bias"] == {42: -1.5, 7: float("-inf"), 9: 2.0, 8: -2.0}


def test_every_sampling_parameter_has_an_option():
    only_python = {"processors"}
    assert {option.name for option in (*SAMPLING_OPTIONS, *ANSWER_OPTIONS)} == set(
        SamplingParams.__dataclass_fields__
    ) - only_python


def test_samplers_reach_the_model_under_llama_cpps_names(cli, fake_llm):
    llm = fake_llm()
    form = (
        "--presence-penalty 0.5 --frequency-penalty -0.2 --dry-multiplier 0.8 --dry-sequence-breaker . "
        "--dry-sequence-breaker : --top-nsigma 1 --typical 0.9 --xtc-probability 0.5 --xtc-threshold 0.2 "
        "--dynatemp-range 0.3 --dynatemp-exp 2 --mirostat 2 --mirostat-lr 0.2 --mirostat-ent 4 --sampling-seq kpt "
        "--min-tokens 3"
    )
    assert cli("run", "Hi", *form.split())[0] == 0
    keywords = llm.requests[0][2]
    assert keywords.pop("logits_hash") is False
    assert keywords == {
        "presence_penalty": 0.5,
        "frequency_penalty": -0.2,
        "dry_multiplier": 0.8,
        "dry_sequence_breakers": (".", ":"),
        "top_n_sigma": 1.0,
        "typical_p": 0.9,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.2,
        "dynatemp_range": 0.3,
        "dynatemp_exponent": 2.0,
        "mirostat": 2,
        "mirostat_eta": 0.2,
        "mirostat_tau": 4.0,
        "samplers": "kpt",
        "min_tokens": 3,
    }


def test_every_loading_keyword_has_an_option():
    import inspect

    from torchless.llm import load

    others = ("progress", "aliases", "task")  # the verb says the task
    keywords = {name for name in inspect.signature(load).parameters if name not in others}
    parts = {"kv_type_k", "kv_type_v", "lora_scaled"}  # of kv and of lora
    options = (*LOAD_OPTIONS, *SPECULATIVE_OPTIONS, *PREFIX_CACHE_OPTIONS)
    assert {str(option.name).removeprefix("no_") for option in options} == keywords | parts


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--temp", "-1", "error: --temp must be a finite number, 0 (greedy) or more, got -1.0\n"),
        ("--temp", "nan", "error: --temp must be"),
        ("--top-p", "1.5", "error: --top-p must be a number from 0 to 1"),
        ("--top-k", "-3", "error: --top-k must be"),
        ("--min-p", "2", "error: --min-p must be"),
        ("--repeat-penalty", "0", "error: --repeat-penalty must be"),
        ("--repeat-last-n", "-5", "error: --repeat-last-n must be"),
        ("-n", "0", "error: --max-tokens must be a whole number, 1 or more"),
        ("--seed", "-7", "error: --seed must be"),
        ("--stop", "", "error: --stop must be a non-empty string"),
        ("--samplers", "top_q", "error: --samplers must be names from penalties, dry,"),
        ("--mirostat", "3", "error: --mirostat must be 0 (off), 1 or 2, got 3"),
        ("--typical-p", "2", "error: --typical-p must be a number from 0 to 1"),
    ],
)
def test_nonsense_values_are_refused_before_the_model_is_loaded(cli, fake_llm, option, value, message):
    llm = fake_llm()
    status, out, err = cli("run", "Hi", option, value)
    assert (status, out) == (1, "")
    assert err.startswith(message)
    assert not llm.loaded_with


def test_malformed_biases_are_usage_errors(cli, fake_llm):
    fake_llm()
    for value in ("a=1", "5", "5=x", "=1"):
        status, _, err = cli("run", "Hi", "--logit-bias", value)
        assert status == 2 and "ID=VALUE" in err


# -- chat or continuation -------------------------------------------------------------------------


def test_a_model_without_template_continues_the_text(cli, fake_llm):
    llm = fake_llm()
    cli("run", "Once")
    assert llm.requests[0][:2] == ("stream", "Once")


def test_a_model_with_template_answers(cli, fake_llm):
    llm = fake_llm(has_template=True)
    cli("run", "m.gguf", "Why?", "--system", "Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert llm.requests[0][:2] == ("stream_chat", messages)


def test_the_built_in_model_continues_though_it_can_chat(cli, fake_llm):
    llm = fake_llm(has_template=True)
    cli("run", "Once")
    assert llm.loaded_with["model"] is None
    assert llm.requests[0][:2] == ("stream", "Once")


def test_raw_and_chat_force_the_one_or_the_other(cli, fake_llm, tmp_path):
    llm = fake_llm(has_template=True)
    cli("run", "m.gguf", "Once", "--raw")
    assert llm.requests[0][0] == "stream"
    llm = fake_llm()
    cli("run", "Why?", "--chat")
    assert llm.requests[0][0] == "stream_chat"
    llm = fake_llm()
    template = tmp_path / "t"
    template.write_text("x")
    cli("run", "Why?", "--chat-template", template)
    assert llm.requests[0][0] == "stream_chat"


def test_a_chat_needs_a_question(cli, fake_llm):
    fake_llm(has_template=True)
    status, out, err = cli("run", "-m", "m.gguf")
    assert (status, out) == (1, "")
    assert "the prompt is empty" in err and "--raw" in err


def test_a_continuation_has_no_place_for_a_system_message(cli, fake_llm):
    fake_llm()
    status, _, err = cli("run", "Once", "--system", "Be brief.")
    assert status == 2 and "--system needs a chat template" in err


def test_an_empty_prompt_starts_from_the_begin_token(cli, fake_llm):
    llm = fake_llm()
    assert cli("run")[0] == 0
    assert llm.requests[0][1] == ""


def test_the_prompt_can_be_printed_before_its_continuation(cli, fake_llm):
    fake_llm([" upon"])
    assert cli("run", "Once", "--echo")[1] == "Once upon\n"


# -- ends -----------------------------------------------------------------------------------------


def test_errors_in_the_middle_keep_the_text(cli, fake_llm):
    fake_llm(["Once upon", ContextLengthError(9, 8)])
    status, out, err = cli("run", "Hi")
    assert (status, out) == (1, "Once upon\n")
    assert err.startswith("error: the prompt has 9 tokens")


def test_ctrl_c_keeps_the_text_and_ends_the_line(cli, fake_llm):
    import signal

    before = signal.getsignal(signal.SIGINT)
    llm = fake_llm(["Once upon", KeyboardInterrupt()])
    try:
        assert cli("run", "Hi") == (130, "Once upon\n", "")
    finally:
        signal.signal(signal.SIGINT, before)
    assert llm.is_closed


def test_the_model_is_closed(cli, fake_llm):
    llm = fake_llm()
    cli("run", "Hi")
    assert llm.is_closed


# -- statistics -----------------------------------------------------------------------------------


def test_statistics_are_one_block_on_stderr(cli, fake_llm):
    llm = fake_llm(["a", "b", "c"])
    status, out, err = cli("run", "Hi", "--stats", "-s", "11")
    assert (status, out) == (0, "abc\n")
    assert llm.requests[0][2]["logits_hash"] is True
    lines = err.splitlines()
    assert lines[0] == "Statistics"
    values = {line[2:15].strip(): line[15:] for line in lines[1:]}
    assert values["prefill"] == "300.0 tok/s (3 tokens in 10.0 ms)"
    assert values["decode"] == "100.0 tok/s (3 tokens in 20.0 ms)"
    assert values["first token"].startswith("12.5 ms")
    assert values["logits hash"] == "0123456789abcdef"
    assert values["seed"] == "11"
    assert "0.10 GB/s of weights" in values["bandwidth"]  # 1 MB a token, 100 times a second
    assert "reference backend" in values["bandwidth"]  # which is why there is no percentage
    assert values["peak memory"].endswith("iB")


def test_without_stats_no_hash_is_computed(cli, fake_llm):
    llm = fake_llm()
    assert cli("run", "Hi")[2] == ""
    assert llm.requests[0][2]["logits_hash"] is False


def test_peak_memory_is_the_kernels_figure():
    peak = statistics.peak_memory_bytes()
    assert peak is not None and 10 << 20 < peak < 1 << 40
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert statistics.peak_memory_bytes() >= peak


def test_text_is_not_quoted_or_escaped(cli, fake_llm):
    text = json.dumps({"a": [1, 2], "b": "\u00fc"}, ensure_ascii=False)
    fake_llm([text])
    assert cli("run", "Hi")[1] == text + "\n"
