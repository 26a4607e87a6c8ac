"""The command line as a user has it: processes with real (tiny) models, pipes, terminals and signals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_models import CONTEXT
from cli_processes import Terminal, command, environment, torchless

from torchless.bench.synthetic import write_synthetic

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and pseudo-terminals")

FOREVER = ["--ignore-eos", "--ctx", "200000", "--backend", "reference"]


def endless(model):
    """A run that goes on until it is stopped, with its first text already out."""
    argv = command("run", model, "the cat", *FOREVER)
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    first = process.stdout.read(20)
    assert len(first) == 20
    return process, first


def assert_nothing_but_the_warning(err):
    """The context asked for is longer than what the model was trained for, which is said."""
    assert [line for line in err.splitlines() if not line.startswith(b"warning: ctx=")] == []


# -- from file to text ----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_model_writes_the_same_text_for_the_same_seed(plain_model, backend):
    if backend == "cpu":
        pytest.importorskip("torchless._core")
    options = ["-n", "12", "--seed", "5", "--backend", backend, "--ignore-eos"]
    first = torchless("run", plain_model, "the cat", *options)
    assert first.status == 0 and first.err == "" and first.out.endswith("\n") and len(first.out) > 5
    assert torchless(plain_model, "the cat", *options) == first
    assert torchless("run", plain_model, *options, stdin=b"the cat\n") == first


def test_the_built_in_model_tells_stories_that_end_and_differ():
    from torchless.loading import BUILT_IN_MODEL

    if not BUILT_IN_MODEL.exists():
        pytest.skip("the built-in model is not in this tree")
    stories = [torchless("run", "Once upon a time", "--seed", seed) for seed in (1, 2)]
    for story in stories:
        assert story.status == 0 and story.err == ""
        assert story.out.count(".") >= 3 and story.out.endswith("\n")
    assert stories[0].out != stories[1].out
    assert torchless("run", "Once upon a time", "--seed", 1) == stories[0]


def test_python_and_the_command_line_agree(plain_model):
    import torchless as package

    with package.load(plain_model, backend="reference") as llm:
        expected = llm.generate("the cat", max_tokens=10, temperature=0, logits_hash=True)
    ended = torchless(
        "run", plain_model, "the cat", "-n", 10, "--temp", 0, "--backend", "reference", "--stats"
    )
    assert ended.out.rstrip("\n") == expected.text.rstrip("\n")
    assert f"logits hash  {expected.logits_hash}\n" in ended.err


def test_statistics_have_figures(plain_model):
    pytest.importorskip("torchless._core")
    ended = torchless("run", plain_model, "the cat", "-n", 10, "--ignore-eos", "--stats")
    assert ended.status == 0
    assert re.search(r"prefill +\d+\.\d tok/s \(\d+ tokens in ", ended.err)
    assert re.search(r"decode +\d+\.\d tok/s \(10 tokens in ", ended.err)
    assert re.search(r"bandwidth +\d+\.\d\d GB/s of weights .*, \d+\.\d% of the \d+\.\d GB/s", ended.err)
    assert re.search(r"logits hash +[0-9a-f]{8,}", ended.err)


def test_the_hash_does_not_depend_on_chunks(plain_model):
    """The promise of the project, seen from the command line."""
    hashes = set()
    for batch in (1, 3, 512):
        options = ["-n", 8, "--temp", 0, "-b", batch, "--stats", "--backend", "reference"]
        ended = torchless("run", plain_model, "the cat sat on the mat", *options)
        hashes.add(re.search(r"logits hash +(\S+)", ended.err)[1])
    assert len(hashes) == 1


def test_a_chat_through_a_pipe(chat_model):
    options = ["-n", "5", "--seed", "1", "--backend", "reference", "--ignore-eos"]
    ended = torchless("chat", chat_model, *options, stdin=b"the cat\n/clear\nthe cat\n/exit\n")
    assert ended.status == 0 and ended.err == ""
    assert "Forgotten." in ended.out
    first, second = ended.out.split("Forgotten. A new conversation begins.\n")
    assert first == second != ""


# -- bad input ------------------------------------------------------------------------------------


def assert_error(ended, *parts, status=1):
    assert ended.status == status
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    for part in parts:
        assert part in ended.err, ended.err


def test_no_such_file(plain_model, tmp_path):
    assert_error(torchless("run", tmp_path / "no.gguf", "x"), "no.gguf: no such file")
    assert_error(torchless("run", plain_model.with_name("tinny.gguf"), "x"), "did you mean tiny.gguf?")


def test_not_a_model(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("some notes")
    assert_error(torchless("run", path, "x"), "notes.txt: not a model file", "GGUF")
    (tmp_path / "empty.gguf").write_bytes(b"")
    assert_error(torchless("run", tmp_path / "empty.gguf", "x"), "empty")


def test_truncated_file(plain_model, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(plain_model.read_bytes()[:-1000])
    assert_error(torchless("run", path, "x"), "short.gguf", "the file")


def test_unsupported_architecture_and_type(tmp_path):
    from cli_models import write_model

    path = write_model(tmp_path / "strange.gguf", architecture="strange-net")
    assert_error(torchless("run", path, "x"), "'strange-net' is not supported")
    path = tmp_path / "intermediate.gguf"
    write_synthetic(path, "test", "Q4_K_S")
    name = b"output_norm.weight"  # the last one: no tensor lies behind it
    raw = bytearray(path.read_bytes())
    type_at = raw.index(name) + len(name) + 4 + 8  # number of dimensions, length
    assert raw[type_at : type_at + 4] == bytes(4)  # F32
    raw[type_at] = 15  # Q8_K, of fewer bytes
    path.write_bytes(raw)
    assert_error(torchless("run", path, "x"), "Q8_K")


def test_prompt_longer_than_the_context(plain_model):
    ended = torchless("run", plain_model, "cat " * 1000, "--backend", "reference")
    number = int(re.search(r"the prompt has (\d+) tokens but the context holds (\d+)", ended.err)[1])
    assert number > 1000 and f"holds {CONTEXT}" in ended.err
    assert_error(ended)


def test_too_little_memory(plain_model):
    assert_error(
        torchless("run", plain_model, "x", "--ctx", "2000000000"), "needs", "are available", "Ways out"
    )


def test_invalid_utf8(plain_model):
    assert_error(torchless("run", plain_model, stdin=b"abc\xff"), "byte 0xff at offset 3")
    argv = [word.encode() for word in command("run", plain_model)] + [b"a\xff"]
    done = subprocess.run(argv, capture_output=True, env=environment(), stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and b"byte 0xff at offset 1" in done.stderr


def test_nonsense_sampling_value(plain_model):
    assert_error(torchless("run", plain_model, "x", "--temp", "-1"), "--temp must be")


def test_forced_level_that_the_machine_lacks(plain_model):
    pytest.importorskip("torchless._core")
    ended = torchless("run", plain_model, "x", TORCHLESS_ISA="mmx")
    assert ended.status == 1 and ended.err.startswith("error: TORCHLESS_ISA=mmx is not available")


# -- streams and signals --------------------------------------------------------------------------


def test_a_reader_that_leaves_is_no_error(plain_model):
    process, _ = endless(plain_model)
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert_nothing_but_the_warning(process.stderr.read())


def test_a_full_disk_is_an_error(plain_model):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("wb") as full:
        argv = command("run", plain_model, "x", "-n", "3", "--backend", "reference", "--ignore-eos")
        done = subprocess.run(
            argv, stdout=full, stderr=subprocess.PIPE, env=environment(), stdin=subprocess.DEVNULL
        )
    assert done.returncode == 1
    assert done.stderr == b"error: writing the output: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams_do_no_harm(plain_model, closed):
    script = f"{' '.join(command('run', plain_model, 'cat', '-n', 3, '--backend', 'reference'))} {closed}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, env=environment(), timeout=60)
    assert done.returncode == 0 and b"Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_decoding_ends_at_once(plain_model, number, status):
    process, first = endless(plain_model)
    sent = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - sent < 2
    assert process.returncode == status
    assert (first + out).endswith(b"\n")  # the text so far, and the line ended
    assert_nothing_but_the_warning(err)


@pytest.mark.parametrize("delay", [0.15, 0.25, 0.35, 0.5])
def test_a_signal_at_any_time_ends_cleanly(plain_model, delay):
    """While Python starts nothing of ours runs yet; after that there is never a traceback."""
    process = subprocess.Popen(
        command("run", plain_model, "the cat", *FOREVER),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    try:
        err = process.communicate(timeout=20)[1]
    except subprocess.TimeoutExpired as late:
        # Before ours runs, Python may raise KeyboardInterrupt in a callback and forget it: one presses again.
        if b"Exception ignored in" not in (late.stderr or b""):
            raise
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) in (130, -signal.SIGINT)
        return
    finally:
        process.kill()
    if b"runpy" not in err:  # the interpreter itself was interrupted
        assert process.returncode in (130, -signal.SIGINT)
        assert b"Traceback" not in err


NATIVE = """
import hashlib, os, sys
from torchless.cli.interrupts import SignalWatch

with SignalWatch(lambda: os.write(1, b"finished")):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes in C, with the GIL released
"""


def test_a_signal_while_native_code_runs_ends_at_once():
    """A call that does not come back to Python cannot keep the process."""
    argv = [sys.executable, "-c", NATIVE]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.2)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == (b"finished", b"")
    assert process.returncode == 130 and time.monotonic() - sent < 2


def test_ctrl_c_while_standard_input_is_awaited(plain_model):
    process = subprocess.Popen(
        command("run", plain_model),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


# -- terminals ------------------------------------------------------------------------------------


def test_on_a_terminal_the_prompt_is_shown_and_lines_break_between_words(plain_model):
    options = ["-n", "60", "--seed", "3", "--ignore-eos", "--backend", "reference", "--logit-bias", "13=-inf"]
    with Terminal(command("run", plain_model, "the cat sat", *options), num_columns=40) as terminal:
        assert terminal.wait() == 0
        screen = terminal.screen
    assert screen.startswith("\x1b[2mthe cat sat\x1b[0m")
    assert screen.endswith("\n")


def test_no_color_is_respected():
    with Terminal(command("shwo"), NO_COLOR="1") as terminal:
        assert terminal.wait() == 2
        assert "\x1b" not in terminal.screen and "did you mean 'show'?" in terminal.screen
    with Terminal(command("shwo")) as terminal:
        assert terminal.wait() == 2
        assert "\x1b[31m" in terminal.screen


def test_errors_are_wrapped_between_words():
    with Terminal(command("run", "nosuch.gguf"), num_columns=40) as terminal:
        assert terminal.wait() == 1
        lines = terminal.screen.splitlines()
    assert len(lines) > 1 and all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) < 40 for line in lines)


def test_ctrl_c_on_a_terminal_gives_the_line_back(plain_model):
    with Terminal(command("run", plain_model, "the cat", *FOREVER)) as terminal:
        terminal.wait_for_more_than("the cat")
        terminal.press("\x03")
        assert terminal.wait() == 130
        # The terminal shows ^C at once, and text that was on its way may follow it.
        _, pressed, rest = terminal.screen.rpartition("^C")
        assert pressed and rest.endswith("\n") and "Traceback" not in terminal.screen


LOADING = """
import sys, time
import torchless
from torchless.cli import main

def load(model, *, progress, **keywords):
    for i in range(200):
        progress(i * 1_000_000, 200_000_000)
        time.sleep({step})
    raise torchless.FormatError("that was all")

torchless.load = load
sys.exit(main(["run", "some-model.gguf", "Hi"]))
"""


def test_slow_loading_shows_a_bar_and_takes_it_away():
    with Terminal([sys.executable, "-c", LOADING.format(step=0.01)]) as terminal:
        terminal.wait_for("Loading some-model.gguf")
        assert terminal.wait() == 1
        screen = terminal.screen
    assert "0.2 GB" in screen or "MiB" in screen
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")  # the cursor is back
    assert screen.rindex("\x1b[2K") > screen.rindex("Loading")  # the line was erased
    assert screen.endswith("that was all\n")


def test_quick_loading_shows_none():
    with Terminal([sys.executable, "-c", LOADING.format(step=0.001)]) as terminal:
        assert terminal.wait() == 1
        assert "Loading" not in terminal.screen and "\x1b[?25l" not in terminal.screen


def test_nobody_at_the_terminal_sees_no_bar():
    argv = [sys.executable, "-c", LOADING.format(step=0.008)]
    done = subprocess.run(argv, capture_output=True, env=environment(), timeout=60)
    assert done.stderr == b"error: that was all\n"


def test_ctrl_c_while_loading_takes_the_bar_away():
    with Terminal([sys.executable, "-c", LOADING.format(step=0.05)]) as terminal:
        terminal.wait_for("Loading some-model.gguf")
        terminal.press("\x03")
        assert terminal.wait() == 130
        screen = terminal.screen
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")
    assert screen.rindex("\x1b[2K") > screen.rindex("Loading")
    assert "Traceback" not in screen


def test_a_chat_on_a_terminal(chat_model):
    options = ["--backend", "reference", "--seed", "1", "--ignore-eos", "--ctx", "100000"]
    with Terminal(command("chat", chat_model, "--plain", *options)) as terminal:
        terminal.wait_for("Ctrl-D leaves.")
        terminal.wait_for(">>> ")
        terminal.press("the cat\n")
        terminal.wait_for_more_than("the cat\n")  # without text the question would be taken back
        terminal.press("\x03")  # stops the answer, not the chat
        terminal.wait_for("^C")
        terminal.wait_for_end(">>> ")
        terminal.press("/show\n")
        terminal.wait_for("turns    2")
        terminal.wait_for_end(">>> ")
        # Nothing to stop: says how to leave. (readline misses a signal between its prompt and its wait.)
        terminal.press_until("\x03", "Ctrl-D or /exit leaves.")
        terminal.wait_for_end(">>> ")
        terminal.press("\x1b[A")  # history: the last line comes back
        terminal.wait_for_end(">>> /show")
        terminal.press("\x15\x04")  # clear the line, leave
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.screen


def test_run_without_prompt_chats_with_a_chat_model(chat_model):
    with Terminal(command("run", chat_model, "--backend", "reference", "-n", "3")) as terminal:
        terminal.wait_for(">>> ")
        terminal.press("/bye\n")
        assert terminal.wait() == 0


def test_sigterm_in_a_chat_ends_it(chat_model):
    with Terminal(command("chat", chat_model, "--plain", "--backend", "reference")) as terminal:
        terminal.wait_for(">>> ")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 143
        assert "Traceback" not in terminal.screen
