"""Downloading from a hub and from a web server on this machine: choice of files, cache, breaks, refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hub_server import COMMIT, HubServer

from torchless.bench.synthetic import write_synthetic
from torchless.errors import ModelNotFoundError
from torchless.hub.web_file import download_file

pytest.importorskip("huggingface_hub")
REPOSITORY = Path(__file__).resolve().parents[2]
LARGE = np.random.default_rng(1).bytes(26 << 20)  # more than two of the library's chunks


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_synthetic(path, "test", "Q4_K_M", layers=1)
    return path.read_bytes()


@pytest.fixture
def server(gguf: bytes) -> Iterator[HubServer]:
    half = len(gguf) // 2
    hub = HubServer(
        {
            "org/tiny": {"tiny-Q4_K_M.gguf": gguf, "tiny-Q8_0.gguf": gguf[:half], "README.md": b"read"},
            "org/large": {"large-Q8_0.gguf": LARGE},
            "web": {"files/model.gguf": gguf},
        }
    )
    yield hub
    hub.close()


def environment(server: HubServer, folder: Path) -> dict[str, str]:
    """Of a process whose hub is the server and whose caches lie in the folder."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()
    }
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "hf"), "TORCHLESS_CACHE": str(folder / "web")}
    return {**kept, **own, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def run(server: HubServer, tmp_path: Path) -> Callable[..., Ended]:
    """Runs Python in a process of its own, whose hub is the server: the library reads its settings once."""

    def start(*arguments: str, **changes: str) -> Ended:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env={**environment(server, tmp_path), **changes},
            timeout=120,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture
def torchless(run: Callable[..., Ended]) -> Callable[..., Ended]:
    return lambda *arguments, **changes: run("-m", "torchless", *arguments, **changes)


def test_a_name_is_downloaded_once_and_runs(
    server: HubServer, torchless: Callable[..., Ended], gguf: bytes
) -> None:
    status, out, err = torchless("pull", "org/tiny")
    assert status == 0, err
    path = Path(out.strip())
    assert path.name == "tiny-Q4_K_M.gguf" and COMMIT in path.parts and path.read_bytes() == gguf
    first = [line for line in server.requests if line.endswith(".gguf") and line.startswith("GET")]
    assert len(first) == 1 and "Q4_K_M" in first[0]
    server.requests.clear()
    status, out, err = torchless("show", "org/tiny")
    assert status == 0 and "architecture  llama" in out, err
    assert torchless("run", "org/tiny", "hi", "--raw", "-n", "2", "--ctx", "64").status == 0
    assert not [line for line in server.requests if line.endswith(".gguf") and line.startswith("GET")]
    server.close()
    assert torchless("pull", "org/tiny").out == f"{path}\n"
    assert torchless("pull", "org/tiny", HF_HUB_OFFLINE="1").out == f"{path}\n"


def test_a_broken_connection_is_resumed(server: HubServer, torchless: Callable[..., Ended]) -> None:
    server.break_after = {"large-Q8_0.gguf": 15 << 20}
    status, out, err = torchless("pull", "org/large:q8_0")
    assert status == 0, err
    assert Path(out.strip()).read_bytes() == LARGE
    ranges = [line for line in server.requests if "bytes=" in line]
    assert len(ranges) == 1 and 0 < int(ranges[0].split("bytes=")[1].rstrip("-")) <= 15 << 20


@pytest.mark.parametrize("place", ["hub", "web"])
def test_ctrl_c_ends_a_download_at_once_and_the_next_one_goes_on(
    place: str, server: HubServer, torchless: Callable[..., Ended], tmp_path: Path
) -> None:
    server.repos["web"]["files/large.gguf"] = LARGE
    name = "org/large" if place == "hub" else f"{server.url}/web/files/large.gguf"
    server.stall_after = {"large-Q8_0.gguf": 15 << 20, "large.gguf": 15 << 20}
    process = subprocess.Popen(
        [sys.executable, "-m", "torchless", "pull", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(server, tmp_path),
    )

    def received() -> list[Path]:
        files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
        return [path for path in files if path.stat().st_size >= 10 << 20]

    deadline = time.monotonic() + 60
    while not received() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and said == ""
    assert time.monotonic() - began < 5
    kept = received()
    if place == "web":
        assert [path.name for path in kept] == [".large.gguf.partial"]
    else:  # some versions of the library name it so that a later download can go on, and others leave nothing
        assert all(re.fullmatch(r"[0-9a-f]+\.incomplete", path.name) for path in kept)
    assert torchless("ls").out == ""  # what is not whole is no model
    server.stall_after.clear()
    server.requests.clear()
    status, out, err = torchless("pull", name)
    assert status == 0 and Path(out.strip()).read_bytes() == LARGE, err
    resumed = [line for line in server.requests if "bytes=" in line]
    assert [int(line.split("bytes=")[1].rstrip("-")) >= 10 << 20 for line in resumed] == [True] * len(kept)


def test_progress_counts_the_bytes(run: Callable[..., Ended]) -> None:
    code = (
        "from torchless.hub import local_path\n"
        "calls = []\n"
        "local_path('org/large', lambda done, total: calls.append((done, total)))\n"
        "print(calls == sorted(calls), calls[-1], len(calls) > 2)\n"
    )
    assert run("-c", code).out == f"True ({len(LARGE)}, {len(LARGE)}) True\n"


def test_models_are_listed_and_deleted(torchless: Callable[..., Ended], tmp_path: Path) -> None:
    assert torchless("ls").out == ""
    for name in ("org/tiny", "org/tiny:Q8_0", "org/large"):
        assert torchless("pull", name).status == 0
    rows = json.loads(torchless("ls", "-o", "json").out)
    assert [row["name"] for row in rows] == ["org/large:Q8_0", "org/tiny:Q4_K_M", "org/tiny:Q8_0"]
    assert all(Path(row["path"]).is_file() and row["num_bytes"] > 0 for row in rows)
    assert "org/tiny:Q8_0" in torchless("ls").out
    assert torchless("rm", "org/tiny:q8_0") == (0, "", "")
    assert "org/tiny:Q8_0" not in torchless("ls").out and "org/tiny:Q4_K_M" in torchless("ls").out
    assert torchless("rm", "org/large").status == 0 and torchless("rm", "org/tiny:Q4_K_M").status == 0
    assert torchless("ls").out == ""
    assert not [
        path for path in (tmp_path / "hf").rglob("*") if path.is_file() and path.stat().st_size > 10_000
    ]
    status, _, err = torchless("rm", "org/tiny")
    assert status == 1 and "not in the cache, which holds nothing" in err


def test_refusals_are_explained(server: HubServer, torchless: Callable[..., Ended]) -> None:
    for name, message in (
        ("org/none", "no such file here, and no such repository"),
        ("org/tiny@v9", "no revision 'v9'"),
        ("org/tiny:Q2_K", "has no Q2_K; GGUF models there: Q4_K_M, Q8_0"),
        ("model.gguf", "a path, not a name"),
    ):
        status, out, err = torchless("pull", name)
        assert (status, out) == (1, "") and message in err.replace("\n", " "), name
    status, _, err = torchless("pull", "org/tiny", HF_HUB_OFFLINE="1")
    assert (
        status == 1
        and "not in the cache, which holds nothing of it, and HF_HUB_OFFLINE forbids downloads" in err
    )
    server.gated.add("org/tiny")
    assert "access must be granted first" in torchless("pull", "org/tiny").err.replace("\n", " ")
    server.gated.clear()
    server.token = "secret"
    assert torchless("pull", "org/tiny").status == 1
    assert torchless("pull", "org/tiny", HF_TOKEN="secret").status == 0
    err = torchless("run", "org/tiny:Q8_0", "hi", HF_HUB_OFFLINE="1").err
    assert "org/tiny:Q8_0: not in the cache, which holds org/tiny:Q4_K_M, and HF_HUB_OFFLINE" in err
    server.close()
    assert "download failed" in torchless("pull", "org/large").err.replace("\n", " ")


def test_a_repository_is_deleted_beside_a_file_of_another_server(
    server: HubServer, torchless: Callable[..., Ended]
) -> None:
    url = f"{server.url}/web/files/model.gguf"
    for name in (url, "org/tiny"):
        assert torchless("pull", name).status == 0
    assert torchless("rm", "org/tiny") == (0, "", "")
    assert url in torchless("ls").out and "org/tiny" not in torchless("ls").out


def test_importing_torchless_does_not_import_the_library(run: Callable[..., Ended]) -> None:
    code = "import sys, torchless.hub, torchless.llm, torchless.cli.program; print('huggingface_hub' in sys.modules)"
    assert run("-c", code).out == "False\n"


def test_a_file_of_another_server(server: HubServer, gguf: bytes, torchless: Callable[..., Ended]) -> None:
    url = f"{server.url}/web/files/model.gguf"
    status, out, err = torchless("pull", url, HF_ENDPOINT="http://127.0.0.1:1")
    assert status == 0 and Path(out.strip()).read_bytes() == gguf, err
    assert f"{url}  " in torchless("ls", HF_ENDPOINT="http://127.0.0.1:1").out
    assert torchless("rm", url, HF_ENDPOINT="http://127.0.0.1:1").status == 0
    assert torchless("ls").out == ""


def test_a_web_download_goes_on_where_it_broke(
    server: HubServer, gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHLESS_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url, calls = f"{server.url}/web/files/model.gguf", []
    server.break_after = {"model.gguf": len(gguf) // 3}
    path = download_file(url, lambda done, total: calls.append((done, total)))
    assert path.read_bytes() == gguf and calls[-1] == (len(gguf), len(gguf))
    assert any(f"bytes={len(gguf) // 3}-" in line for line in server.requests)
    server.requests.clear()
    assert download_file(url) == path and not server.requests
    # Another file by now: what is here of the old one is not used.
    path.unlink()
    (path.parent / ".model.gguf.partial").write_bytes(b"old")
    (path.parent / ".etag").write_text('"other"')
    assert download_file(url).read_bytes() == gguf
    with pytest.raises(ModelNotFoundError, match="names no file"):
        download_file(server.url + "/web/")
