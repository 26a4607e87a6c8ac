"""Builds GGUF files byte by byte, apart from the package's own writer: any version, byte order, content."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}

ALL_TYPES: dict[str, tuple[Any, ...]] = {
    "a.uint8": (0, 255),
    "a.int8": (1, -128),
    "a.uint16": (2, 65535),
    "a.int16": (3, -32768),
    "a.uint32": (4, 2**32 - 1),
    "a.int32": (5, -(2**31)),
    "a.float32": (6, 0.5),
    "a.bool": (7, True),
    "a.string": (8, "naïve 🦙"),
    "a.uint64": (10, 2**64 - 1),
    "a.int64": (11, -(2**63)),
    "a.float64": (12, 0.1),
    "l.uint16": (9, 2, [1, 256, 65535]),
    "l.int32": (9, 5, [-1, 0, 7]),
    "l.float32": (9, 6, [0.25, -1e30]),
    "l.bool": (9, 7, [True, False]),
    "l.string": (9, 8, ["a", "", "▁the"]),
    "l.empty": (9, 8, []),
    "l.uint64": (9, 10, [2**63]),
    "l.nested": (9, 9, [(5, [1, 2]), (8, ["x", "yz"]), (9, [(0, [3])]), (6, [])]),
}
"""Key -> (type, value), or (9, element type, elements); elements of type 9 are (element type, elements)."""


class GgufBuilder:
    """Collects a file's parts; `build` joins them with whatever counts it is told."""

    def __init__(self, order: str = "<", version: int = 3, alignment: int = 32) -> None:
        self.order = order
        self.version = version
        self.alignment = alignment
        self.keys: list[bytes] = []
        self.infos: list[bytes] = []
        self.data = b""

    def pack(self, codes: str, *values: Any) -> bytes:
        return struct.pack(self.order + codes, *values)

    def string(self, text: str | bytes) -> bytes:
        raw = text.encode() if isinstance(text, str) else text
        return self.pack("Q", len(raw)) + raw

    def value(self, kind: int, value: Any) -> bytes:
        return self.string(value) if kind == 8 else self.pack(CODES[kind], value)

    def array(self, kind: int, values: Sequence[Any]) -> bytes:
        items = [self.array(*item) if kind == 9 else self.value(kind, item) for item in values]
        return self.pack("IQ", kind, len(values)) + b"".join(items)

    def key(self, key: str | bytes, kind: int, *value: Any) -> GgufBuilder:
        body = self.array(*value) if kind == 9 else self.value(kind, *value)
        self.keys.append(self.string(key) + self.pack("I", kind) + body)
        return self

    def tensor(
        self, name: str, dims: Sequence[int], kind: int, data: bytes, offset: int | None = None
    ) -> GgufBuilder:
        """`dims` as GGUF has them: row length first."""
        place = len(self.data) if offset is None else offset
        self.infos.append(self.string(name) + self.pack(f"I{len(dims)}QIQ", len(dims), *dims, kind, place))
        self.data += data + bytes(-len(data) % self.alignment)
        return self

    def build(self, *, num_tensors: int | None = None, num_keys: int | None = None) -> bytes:
        tensors = len(self.infos) if num_tensors is None else num_tensors
        keys = len(self.keys) if num_keys is None else num_keys
        head = b"GGUF" + self.pack("IQQ", self.version, tensors, keys)
        head += b"".join(self.keys) + b"".join(self.infos)
        return head + bytes(-len(head) % self.alignment) + self.data
