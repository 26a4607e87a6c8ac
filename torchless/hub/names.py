"""What a model's name means: a path, a repository of the Hugging Face hub, or a URL."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from torchless.errors import ModelNotFoundError

__all__ = ["HubName", "WebName", "parse_name"]

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_NAME = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w./-]+))?(?::(?P<choice>[\w./-]+))?", re.ASCII
)
_SCHEMES = ("http://", "https://")
_EXPLICIT = ("hf://", "hf:")
_FILE_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, slots=True)
class HubName:
    """A model of the hub.

    Attributes:
        repo: ``org/name``.
        choice: a quantisation (``Q4_K_M``) or a file of the repository; None takes ours.
        revision: branch, tag or commit; None is the main branch.
    """

    repo: str
    choice: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}" + (f":{self.choice}" if self.choice else "")


@dataclass(frozen=True, slots=True)
class WebName:
    """A file behind a URL that is not the hub's."""

    url: str


def parse_name(model: str) -> HubName | WebName | None:
    """The name in `model`; None for a path.

    What exists is a path, and so is what ends like a model file or lies in a folder that exists; ``hf:`` before a
    name says that it is none.

    Raises:
        ModelNotFoundError: ``hf:`` before something that is no name.

    >>> parse_name("example-org/model:Q4_K_M")
    HubName(repo='example-org/model', choice='Q4_K_M', revision=None)
    >>> parse_name("hf:example-org/model@v1").revision
    'v1'
    >>> parse_name("https://example.org/model.gguf")
    WebName(url='https://example.org/model.gguf')
    >>> parse_name("./model") is None and parse_name("org/repo/model.gguf") is None
    True
    """
    if model.startswith(_SCHEMES):
        return _parse_url(model)
    for prefix in _EXPLICIT:
        if model.startswith(prefix):
            match = _HUB_NAME.fullmatch(model[len(prefix) :])
            if match is None:
                raise ModelNotFoundError(f"{model}: not a name; expected hf:org/repo or hf:org/repo:QUANT")
            return HubName(match["repo"], match["choice"], match["revision"])
    match = _HUB_NAME.fullmatch(model)
    if match is None or ".." in model or match["repo"].lower().endswith(_FILE_SUFFIXES):
        return None
    if Path(model).exists() or Path(match["repo"]).exists() or Path(model).parent.is_dir():
        return None
    return HubName(match["repo"], match["choice"], match["revision"])


def _parse_url(url: str) -> HubName | WebName:
    """``https://huggingface.co/org/repo``, a file or folder in it, or any other URL."""
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    parts = urlsplit(url)
    own = urlsplit(host)
    hosts = {own.netloc, "huggingface.co", "hf.co"}
    steps = [unquote(step) for step in parts.path.strip("/").split("/")]
    if parts.netloc not in hosts or len(steps) < 2 or _HUB_NAME.fullmatch("/".join(steps[:2])) is None:
        return WebName(url)
    repo = "/".join(steps[:2])
    if len(steps) == 2:
        return HubName(repo)
    if len(steps) >= 4 and steps[2] in ("resolve", "blob", "tree"):
        return HubName(repo, "/".join(steps[4:]) or None, None if steps[3] == "main" else steps[3])
    return WebName(url)
