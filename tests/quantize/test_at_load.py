"""Quantising while loading: the same bytes as `torchless.quantize`, the same logits, and little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import torchless
from torchless.bench.synthetic import write_synthetic
from torchless.conversion.convert import convert
from torchless.errors import InvalidRequestError
from torchless.quantization.at_load import QuantizedSource
from torchless.quantization.recipes import find_recipe
from torchless.weights.open import open_source


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "bf16.gguf"
    write_synthetic(path, "test", "BF16")
    return path


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q8_0", "Q4_0", "F16"])
def test_bytes_and_logits_are_those_of_a_quantised_file(floats: Path, tmp_path: Path, recipe: str) -> None:
    torchless.quantize(floats, tmp_path / "small.gguf", recipe)
    wanted = open_source(tmp_path / "small.gguf")
    found = QuantizedSource(open_source(floats), find_recipe(recipe), 2)
    assert dict(found.tensors) == dict(wanted.tensors)
    for name in found.tensors:
        assert np.array_equal(found.raw(name), wanted.raw(name)), name
    ids = [1, 2, 3, 4, 5]
    at_load = torchless.load(floats, quant=recipe.lower())
    assert at_load.info["tensor_types"] == torchless.load(tmp_path / "small.gguf").info["tensor_types"]
    assert np.array_equal(at_load.logits(ids), torchless.load(tmp_path / "small.gguf").logits(ids))


def test_a_safetensors_folder_gives_the_same_weights(floats: Path, tmp_path: Path) -> None:
    convert(floats, tmp_path / "folder")
    torchless.quantize(floats, tmp_path / "small.gguf", "Q4_K_M")
    wanted = open_source(tmp_path / "small.gguf")
    found = QuantizedSource(open_source(tmp_path / "folder"), find_recipe("Q4_K_M"), 1)
    assert set(found.tensors) == set(wanted.tensors) - {"rope_freqs.weight"}
    for name, info in found.tensors.items():
        if len(info.shape) == 1:  # BF16 in the folder
            continue
        assert info == wanted.tensors[name]
        rows = [source.raw(name).reshape(info.shape[0], -1) for source in (found, wanted)]
        if ".attn_q." in name or ".attn_k." in name:  # the rows of a head are in another order
            rows = [matrix[np.lexsort(matrix.T)] for matrix in rows]
        assert np.array_equal(rows[0], rows[1]), name
    model = torchless.load(tmp_path / "folder", quant="Q4_K_M")
    assert np.isfinite(model.logits([1, 2, 3])).all()


def test_what_cannot_be_quantised_is_refused(floats: Path, tmp_path: Path) -> None:
    torchless.quantize(floats, tmp_path / "small.gguf", "Q8_0")
    with pytest.raises(InvalidRequestError, match="is Q8_0 already; quant quantises models in F32"):
        torchless.load(tmp_path / "small.gguf", quant="Q4_0")
    with pytest.raises(InvalidRequestError, match="unknown recipe 'Q9'"):
        torchless.load(floats, quant="Q9")
    with pytest.raises(InvalidRequestError, match="quant must be the name of a recipe"):
        torchless.load(floats, quant=4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'quants'"):
        torchless.load(floats, quants="Q8_0")


_MEASURE = """
import sys
import torchless
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if "kB" in line}
torchless.load(sys.argv[1], ctx=64, threads=1).close()  # imports, the tokenizer, the arena
import threading, time
peak, done = 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, anonymous()["RssAnon"])
        time.sleep(0.0005)
before = anonymous()["RssAnon"]
watcher = threading.Thread(target=watch)
watcher.start()
model = torchless.load(sys.argv[2], ctx=64, threads=1, quant="Q4_K_M")
done = True
watcher.join()
info = model.info
print(peak - before, info["memory_bytes"]["weights"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_stays_near_the_size_of_the_result(floats: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "large.gguf", "llama-3.2-1b", "BF16", layers=2)
    source = open_source(tmp_path / "large.gguf")
    largest = max(info.num_bytes for info in source.tensors.values())
    quantised = sum(
        info.num_bytes for info in QuantizedSource(source, find_recipe("Q4_K_M"), 1).tensors.values()
    )
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(floats), str(tmp_path / "large.gguf")],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, weights = map(int, done.stdout.split())
    assert weights > 0.3 * quantised
    assert peak <= quantised + 1.2 * largest, (peak / 2**20, quantised / 2**20, largest / 2**20)
