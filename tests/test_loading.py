"""Loading: arguments, other tools' names for them, and everything freed when it fails."""

import logging
import subprocess
import sys

import pytest

import torchless
from torchless import loading
from torchless.bench.synthetic import write_synthetic
from torchless.errors import InvalidRequestError, ModelNotFoundError, OutOfMemoryError

DEFAULTS = {"ctx": "auto", "threads": "auto", "kv": "f16", "backend": "cpu", "batch_tokens": 512}


def settings(model="m.gguf", *, chat_template=None, **given):
    named = {name: given.pop(name) for name in list(given) if name in DEFAULTS}
    return loading.load_settings(model, {**DEFAULTS, **named}, given, chat_template)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "ctx": [0, 1, -5, 1.5, "big", True, None, 2**31],
        "threads": [0, -1, 1025, "two", 2.0, True],
        "batch_tokens": [0, -1, 1.5, "auto", 1 << 17],
        "kv": ["q8", "F16", None, 16],
        "backend": ["cuda", "", None, "base", "../cpu"],
    }.items(),
)
def test_arguments_out_of_range_are_refused_by_name(name, values):
    for value in values:
        with pytest.raises(InvalidRequestError, match=f"{name} must be"):
            settings(**{name: value})


def test_names_of_other_tools():
    found = settings(n_ctx=100, n_threads=3, n_batch=7, kv_cache_dtype="f32")
    assert (found.ctx, found.threads, found.batch_tokens, found.kv) == (100, 3, 7, "f32")
    assert settings(None, model_path="x.gguf").model.name == "x.gguf"


def test_auto_is_left_open():
    found = settings()
    assert found.ctx is None and found.threads is None


def test_unknown_arguments_are_answered_with_the_nearest():
    with pytest.raises(TypeError, match="did you mean 'threads'"):
        settings(treads=3)
    with pytest.raises(TypeError, match="twice"):
        settings("a.gguf", model_path="b.gguf")


def test_a_model_that_is_no_path_is_refused():
    with pytest.raises(InvalidRequestError, match="must be a path"):
        settings(7)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"nothing\.gguf"):
        torchless.load(tmp_path / "nothing.gguf")


def test_a_missing_built_in_model_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "BUILT_IN_MODEL", tmp_path / "stories.gguf")
    with pytest.raises(ModelNotFoundError, match="no model was named"):
        torchless.load()


# -- with a model of random weights ---------------------------------------------------------------


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    write_synthetic(path, "test", "F32")
    return path


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    if request.param == "cpu":
        pytest.importorskip("torchless._core")
    return request.param


def test_info_of_a_loaded_model(small_model):
    with torchless.load(small_model, backend="reference", ctx=100, threads=1, kv="f32") as model:
        info = model.info
    assert info["architecture"] == "llama" and info["vocab_size"] == 512
    assert info["file_bytes"] == 4 * info["num_parameters"] > 1_000_000
    assert (info["context_length"], info["num_threads"], info["kv_type"]) == (100, 1, "f32")
    assert str(small_model) in repr(model)


def test_a_longer_context_than_the_model_was_trained_for_is_used_with_a_warning(small_model, caplog):
    with caplog.at_level(logging.WARNING, "torchless"):
        torchless.load(small_model, backend="reference", ctx=2048).close()
        assert not caplog.records
        with torchless.load(small_model, backend="reference", ctx=2049) as model:
            assert model.context_length == 2049
    assert "2049" in caplog.text and "2048" in caplog.text


def test_too_large_a_context_is_refused_before_anything_is_allocated(small_model):
    with pytest.raises(OutOfMemoryError, match=r"Nothing was allocated.*ctx=\d+ fits"):
        torchless.load(small_model, ctx=2**31 - 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS")
def test_under_an_address_space_limit_a_smaller_load_works_after_a_refusal(small_model):
    code = f"""
import resource, torchless, torchless.llm, tokenizers
torchless.load({str(small_model)!r}, ctx=64, threads=1).close()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    torchless.load({str(small_model)!r}, ctx=1_000_000, threads=1)
except torchless.OutOfMemoryError as error:
    assert "ulimit -v" in str(error), error
else:
    raise AssertionError("it was not refused")
with torchless.load({str(small_model)!r}, ctx=64, threads=1) as model:
    print(len(model.generate("Once upon a time", max_tokens=5, ignore_eos=True).token_ids))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "5"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_load_that_is_cancelled_frees_what_it_took(small_model, monkeypatch, error):
    closed = []
    opened = loading.open_source

    def spy(path):
        source = opened(path)
        close = source.close
        monkeypatch.setattr(source, "close", lambda: (closed.append(True), close()))
        return source

    def cancel(done_bytes, total_bytes):
        raise error

    monkeypatch.setattr(loading, "open_source", spy)
    with pytest.raises(error):
        torchless.load(small_model, progress=cancel)
    assert closed == [True]


def test_a_fork_is_refused_and_the_parent_goes_on(small_model, backend):
    code = f"""
import os, torchless
model = torchless.load({str(small_model)!r}, backend={backend!r}, threads=2)
model.generate("Once", max_tokens=2)
if (pid := os.fork()) == 0:
    try:
        model.generate("Once", max_tokens=2)
    except torchless.TorchlessError as error:
        os._exit(7 if "fork" in str(error) else 1)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
print(len(model.generate("Once", max_tokens=3, ignore_eos=True).token_ids))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip() == "3", done.stderr
