"""Verbs are found by file name; the short form means run; help is quick; failures are sentences."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_processes import REPOSITORY, environment, torchless

from torchless import errors
from torchless.cli import failures
from torchless.cli.discovery import backend_names, names_in
from torchless.cli.program import program

HEAVY = ("numpy", "rich", "tokenizers", "jinja2", "torchless.llm", "torchless._core", "readline")


def test_no_argument_prints_the_help(cli):
    status, out, err = cli()
    assert (status, err) == (0, "")
    assert out == cli("--help")[1] == cli("-h")[1]
    for verb in ("run", "chat", "show", "tokenize", "info"):
        assert re.search(rf"^  {verb} +\S", out, re.MULTILINE)


def test_version_is_the_packages(cli):
    import torchless as package

    assert cli("-V") == cli("--version") == (0, f"torchless, version {package.__version__}\n", "")


@pytest.mark.parametrize("verb", names_in("cli/verbs"))
def test_every_verb_explains_itself(cli, verb):
    status, out, err = cli(verb, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: torchless {verb} ")
    command = program.get_command(click.Context(program), verb)
    assert command is not None and command.name == verb and command.short_help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{verb} {option.opts} has no help"


def test_help_imports_nothing_heavy():
    script = "import sys; from torchless.cli import main; main(['--help']); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment(), check=True)
    loaded = done.stdout.decode().splitlines()[-1]
    assert "'click'" in loaded
    assert [name for name in HEAVY if f"'{name}'" in loaded] == []


def test_help_is_quick():
    """Processor time, since the wall clock of a busy machine says nothing about us."""
    resource = pytest.importorskip("resource")
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert torchless("--help").status == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.25


def test_backends_are_the_folders():
    folders = {path.parent.name for path in (REPOSITORY / "torchless/backends").glob("*/__init__.py")}
    assert set(backend_names()) == folders


def test_near_verbs_are_suggested(cli):
    status, out, err = cli("shwo")
    assert (status, out) == (2, "")
    assert err == "error: no verb 'shwo', and no such file; did you mean 'show'?\nTry 'torchless --help'.\n"
    assert f"the verbs are {', '.join(names_in('cli/verbs'))}" in cli("xyzzy")[2]


def test_a_sentence_without_verb_is_told_how_to_run(cli):
    status, _, err = cli("Once upon a time")
    assert status == 2
    assert "torchless run 'Once upon a time'" in err


def test_the_short_form_runs_a_file(cli, fake_llm, tmp_path):
    llm = fake_llm()
    model = tmp_path / "model"  # nothing in its name says model: it exists, that is enough
    model.write_bytes(b"")
    assert cli(model, "Hi", "-n", 3)[:2] == (0, "Hello there\n")
    assert llm.loaded_with["model"] == str(model)
    assert llm.requests[0][1] == "Hi" and llm.requests[0][2]["max_tokens"] == 3


@pytest.mark.parametrize("first", [["-n", "4"], ["--temp=0"], ["--raw"]])
def test_the_short_form_may_begin_with_options(cli, fake_llm, tmp_path, first):
    llm = fake_llm()
    model = tmp_path / "m.gguf"
    model.write_bytes(b"")
    assert cli(*first, model, "Hi")[0] == 0
    assert llm.loaded_with["model"] == str(model)


def test_the_short_form_reports_a_missing_file(cli):
    status, out, err = cli("nosuch.gguf", "Hi")
    assert (status, out) == (1, "")
    assert err.startswith("error: nosuch.gguf: no such file")


def test_wrong_options_are_usage_errors(cli):
    status, _, err = cli("run", "--max-token", "4")
    assert status == 2 and "--max-tokens" in err and "Try 'torchless run --help'." in err
    status, _, err = cli("run", "-n", "many")
    assert status == 2
    assert "'-n' / '--max-tokens'" in err and "--predict" not in err  # aliases stay out of sight


def _raising(error: BaseException):
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.FormatError("broken"), 1, "error: broken\n"),
        (errors.ContextLengthError(9, 8), 1, "error: the prompt has 9 tokens but the context holds 8"),
        (PermissionError(13, "Permission denied", "/a/b"), 1, "error: /a/b: Permission denied\n"),
        (OSError(28, "No space left on device"), 1, "error: writing the output: No space left on device\n"),
        (MemoryError(), 1, "error: memory ran out; try a smaller context (--ctx)"),
        (ImportError("No module named 'x'"), 1, "error: torchless is not installed completely: No module"),
        (KeyboardInterrupt(), 130, ""),
        (failures.Terminated(), 143, ""),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_failures_become_one_sentence_and_a_status(capfd, monkeypatch, error, status, message):
    import signal

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.delenv("TORCHLESS_DEBUG", raising=False)
    monkeypatch.setattr(failures, "_abandon_stdout", lambda: None)
    try:
        assert failures.guarded(_raising(error)) == status
    finally:
        signal.signal(signal.SIGINT, before)
    err = capfd.readouterr().err
    assert err.startswith(message) and bool(err) == bool(message) and "Traceback" not in err


def test_unexpected_failures_say_how_to_see_more(capfd, monkeypatch):
    monkeypatch.delenv("TORCHLESS_DEBUG", raising=False)
    assert failures.guarded(_raising(ZeroDivisionError("division by zero"))) == 1
    err = capfd.readouterr().err
    assert err.startswith("error: unexpected ZeroDivisionError: division by zero. ")
    assert "TORCHLESS_DEBUG=1" in err and "Traceback" not in err


def test_debug_shows_the_traceback(capfd, monkeypatch):
    monkeypatch.setenv("TORCHLESS_DEBUG", "1")
    assert failures.guarded(_raising(errors.FormatError("broken"))) == 1
    err = capfd.readouterr().err
    assert err.startswith("Traceback") and err.endswith("error: broken\n")


def test_control_characters_of_a_message_cannot_drive_the_terminal(capfd):
    failures.guarded(_raising(errors.FormatError("name is '\x1b]0;owned\x07'")))
    assert "\x1b" not in capfd.readouterr().err


def test_sigterm_is_left_as_it_was():
    import signal

    before = signal.getsignal(signal.SIGTERM)
    failures.guarded(lambda: 0)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(cli, shell):
    status, out, _ = cli("completion", shell)
    assert status == 0 and "_TORCHLESS_COMPLETE" in out


@pytest.mark.parametrize(
    ("words", "expected"), [("torchless ru", "plain,run"), ("torchless run --kv-type b", "plain,bf16")]
)
def test_completion_answers_the_shell(words, expected):
    count = len(words.split()) - 1
    done = torchless(_TORCHLESS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(count))
    assert expected in done.out.splitlines()


def test_importing_torchless_is_quick_and_light():
    script = "import sys; import torchless; print('numpy' in sys.modules, 'click' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment(), check=True)
    assert done.stdout.decode().split() == ["False", "False"]


def test_the_module_and_the_entry_point_are_one():
    text = (REPOSITORY / "pyproject.toml").read_text()
    assert 'torchless = "torchless.cli:main"' in text and 'tl = "torchless.cli:main"' in text
    assert torchless("--version").out.startswith("torchless, version")
    assert Path(failures.__file__).parents[1] == REPOSITORY / "torchless"
