"""Whether a model file is sound: numbers, shapes, tokenizer, template; and a fingerprint of every tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchless.errors import TorchlessError
from torchless.models import record_plan
from torchless.quants import Floats, by_name

if TYPE_CHECKING:
    from torchless.text.tokenizer import Tokenizer
    from torchless.weights.source import WeightSource

__all__ = ["ABSURD_WEIGHT", "TensorCheck", "Verification", "verify"]

ABSURD_WEIGHT = 1e5
"""No weight of a working model is this large; broken scales are."""

_SLICE_WEIGHTS = 1 << 22
_SAMPLES = (
    "Hello, world! It's 12:30; isn't it?",
    "  two  spaces\n\nnew lines\ttab",
    "Fran\u00e7ais, \u0440\u0443\u0441\u0441\u043a\u0438\u0439, \u4e2d\u6587, \u0639\u0631\u0628\u064a",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 and 1234567890",
)
_CONVERSATION = [{"role": "user", "content": "Hello"}]

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and all bytes."""


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """One tensor, read as a whole.

    Attributes:
        sha256: of the stored bytes, as hexadecimal digits.
        largest: largest magnitude of its finite weights.
        problems: what is wrong with it, as sentences; empty if nothing.
    """

    name: str
    type: str
    sha256: str
    largest: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes:
        problems: everything that is wrong, tensors included, as sentences.
        notes: what is unusual but allowed.
        passed: what was found to be right.
    """

    tensors: tuple[TensorCheck, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(source: WeightSource, *, progress: Progress | None = None) -> Verification:
    """Reads all of a model file and checks what can be checked without running it.

    - every tensor: no NaN, no infinity, no weight beyond `ABSURD_WEIGHT`;
    - the architecture is one that torchless runs, and all tensors have the shapes that it needs;
    - the tokenizer gives texts back as they were, and its vocabulary fits the embedding;
    - chat templates render a conversation.

    Never raises for what is wrong with the model: that is what the result tells.
    """
    problems: list[str] = []
    notes: list[str] = []
    passed: list[str] = []
    for check in (_check_plan, _check_text):
        check(source, problems, notes, passed)
    tensors = tuple(_tensors(source, progress))
    problems += [f"tensor {tensor.name}: {problem}" for tensor in tensors for problem in tensor.problems]
    if not any(tensor.problems for tensor in tensors):
        passed.append(f"{len(tensors)} tensors hold ordinary numbers")
    return Verification(tensors, tuple(problems), tuple(notes), tuple(passed))


def _tensors(source: WeightSource, progress: Progress | None) -> Iterator[TensorCheck]:
    total = sum(info.num_bytes for info in source.tensors.values())
    done = 0
    for name, info in source.tensors.items():
        digest = hashlib.sha256()
        nans = infinities = 0
        largest = 0.0
        try:
            form = by_name(info.type)
        except TorchlessError as error:
            digest.update(source.raw(name).tobytes())
            yield TensorCheck(name, info.type, digest.hexdigest(), 0.0, (str(error),))
            continue
        raw = source.raw(name).reshape(-1)
        step = max(1, _SLICE_WEIGHTS // form.block_elements) * form.block_bytes
        for first in range(0, len(raw), step):
            part = raw[first : first + step]
            digest.update(np.ascontiguousarray(part).data)
            values = form.decode(part)
            finite = _finite(values)
            if len(finite) < len(values):
                nan = int(np.isnan(values).sum())
                nans, infinities = nans + nan, infinities + len(values) - len(finite) - nan
            largest = max(largest, float(np.abs(finite).max(initial=0.0)))
            if progress is not None:
                progress(done + first, total)
        source.drop_pages(name)
        done += info.num_bytes
        problems = []
        if nans:
            problems.append(f"{nans} weights are not numbers (NaN)")
        if infinities:
            problems.append(f"{infinities} weights are infinite")
        if largest > ABSURD_WEIGHT:
            problems.append(f"a weight is {largest:.3g}; ordinary ones are below {ABSURD_WEIGHT:g}")
        yield TensorCheck(name, info.type, digest.hexdigest(), largest, tuple(problems))
    if progress is not None:
        progress(total, total)


def _finite(values: Floats) -> Floats:
    is_finite = np.isfinite(values)
    return values if is_finite.all() else values[is_finite]


def _check_plan(source: WeightSource, problems: list[str], notes: list[str], passed: list[str]) -> None:
    try:
        _, config = record_plan(source)
    except TorchlessError as error:
        problems.append(str(error))
        return
    passed.append(
        f"architecture {source.metadata.get('general.architecture')} is complete: "
        f"{config.num_layers} layers, every tensor has its place"
    )


def _check_text(source: WeightSource, problems: list[str], notes: list[str], passed: list[str]) -> None:
    from torchless.loading import tokenizer_of

    try:
        tokenizer = tokenizer_of(source)
    except TorchlessError as error:
        problems.append(f"tokenizer: {error}")
        return
    embedding = source.tensors.get("token_embd.weight")
    if embedding is not None and tokenizer.vocab_size > embedding.shape[0]:
        problems.append(
            f"tokenizer: {tokenizer.vocab_size} tokens, but the embedding has rows for {embedding.shape[0]}"
        )
    changed = [text for text in _SAMPLES if not _comes_back(tokenizer, text)]
    if changed:
        notes.append(f"tokenizer: these texts come back changed: {', '.join(map(repr, changed))}")
    else:
        passed.append(f"tokenizer with {tokenizer.vocab_size} tokens gives texts back as they were")
    if tokenizer.eos_id is None:
        notes.append("tokenizer: no end token is named, so only a length or a stop text ends an answer")
    _check_templates(tokenizer, problems, notes, passed)


def _comes_back(tokenizer: Tokenizer, text: str) -> bool:
    try:
        return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    except TorchlessError:  # characters that the vocabulary lacks
        return False


def _check_templates(tokenizer: Tokenizer, problems: list[str], notes: list[str], passed: list[str]) -> None:
    if not tokenizer.chat_templates:
        notes.append("no chat template: the model continues texts")
    for name in tokenizer.chat_templates:
        from torchless.text.chat_template import ChatTemplate

        try:
            rendered = ChatTemplate.from_tokenizer(tokenizer, name).render(_CONVERSATION)
        except TorchlessError as error:
            problems.append(f"chat template {name}: {error}")
            continue
        if "Hello" not in rendered:
            problems.append(f"chat template {name} leaves out what the user says")
        else:
            passed.append(f"chat template {name} renders a conversation")
