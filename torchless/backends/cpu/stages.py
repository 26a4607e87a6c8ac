"""What lowering makes: stages of the C++ core and the buffers that they read and write."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchless.plan import RopeSpec

__all__ = ["F32", "Buffer", "LoweredPlan", "Stage"]

F32 = "f32"
"""The number format that every op but a product reads."""


@dataclass(slots=True)
class Buffer:
    """A block of the arena: rows of one number format. `first` and `last` are stage indices (lifetime).

    `copies` is the number of rows for each token or output, `spare` that of further rows.
    """

    rows: str
    format: str
    width: int
    first: int
    last: int
    copies: int = 1
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One call of the core's builder: its method and arguments; buffers and weights are still symbolic."""

    kind: str
    args: dict[str, object]

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{k}={v}' for k, v in self.args.items())})"


@dataclass(slots=True)
class LoweredPlan:
    """The stages in execution order and the buffers they use."""

    stages: list[Stage] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    ropes: list[tuple[RopeSpec, int, int]] = field(default_factory=list)  # spec, cos buffer, sin buffer
    output: int = -1
    is_fused: bool = True

    def __str__(self) -> str:
        return "\n".join(str(stage) for stage in self.stages)
