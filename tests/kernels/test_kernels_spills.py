"""The hot loops of the matrix products keep their vectors in registers: a disassembly of the built objects.

A compiler that runs out of registers, or unrolls a loop over an array of accumulators, writes vectors to the stack and
reads them back, which halves the speed of a loop and changes no result. Only a look at the code finds that.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOT = re.compile(r"(direct_tile|panel_tile|float_tile|fast_tile)")
# A store. What is only loaded from the stack is a constant, which costs no more than one in memory elsewhere.
SPILL = re.compile(r"^vmov\w+\s+%[yz]mm\d+,.*\(%rsp")
# One store in so many instructions costs less than whatever would avoid it.
INSTRUCTIONS_PER_SPILL = 50
# Loops with one of these are hot; others prepare or write results.
PRODUCT = re.compile(r"^(vpdp|vpmadd|vdpbf16|vfmadd)")
# A conditional jump: loops end with one, while a plain jump back may also return from a rare path.
JUMP = re.compile(r"^j(?!mp)\w+\s+([0-9a-f]+)\b")


@dataclass
class Function:
    """A disassembled function: its instructions by address, in order."""

    name: str
    code: list[tuple[int, str]]

    def innermost_loops(self) -> Iterator[list[str]]:
        """The bodies of loops that contain no other loop: from the target of a backward jump to the jump."""
        start = self.code[0][0] if self.code else 0
        jumps = ((address, JUMP.match(text)) for address, text in self.code)
        loops = [(int(jump[1], 16), end) for end, jump in jumps if jump and start <= int(jump[1], 16) <= end]
        for begin, end in loops:
            if any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in loops):
                continue
            yield [text for address, text in self.code if begin <= address <= end]


def disassemble(objdump: str, path: Path) -> Iterator[Function]:
    listing = subprocess.run(
        [objdump, "-d", "-C", "--no-show-raw-insn", "-M", "att", str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    function = Function("", [])
    for line in listing.splitlines():
        if header := re.match(r"^[0-9a-f]+ <(.*)>:$", line):
            yield function
            function = Function(header[1], [])
        elif instruction := re.match(r"^\s*([0-9a-f]+):\s+(.*)$", line):
            function.code.append((int(instruction[1], 16), instruction[2]))
    yield function


def spills(functions: Iterator[Function]) -> Iterator[str]:
    for function in functions:
        if not HOT.search(function.name):
            continue
        for loop in function.innermost_loops():
            if not any(PRODUCT.match(text) for text in loop):
                continue
            found = [text for text in loop if SPILL.search(text)]
            if len(found) > len(loop) // INSTRUCTIONS_PER_SPILL:
                name = re.sub(r"\(anonymous namespace\)::|tl::|\(MatmulArgs.*", "", function.name)
                yield f"{name}: {len(found)} of {len(loop)} instructions, such as {found[0]}"


@pytest.fixture(params=["avx2", "avxvnni", "avx512"])
def functions(request: pytest.FixtureRequest) -> list[Function]:
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("there is no objdump")
    functions: list[Function] = []
    for source in ("matmul", "fast"):
        objects = ROOT.glob(f"build/*/CMakeFiles/kernels_{request.param}.dir/csrc/cpu/{source}.cpp.o")
        # Sanitizers use the stack on purpose (scripts/test_sanitized).
        plain = (path for path in objects if "sanitized" not in path.relative_to(ROOT).parts[1])
        newest = max(plain, key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            pytest.skip("there are no kernel objects under build/: build with scripts/build")
        functions += disassemble(objdump, newest)
    if not any(HOT.search(f.name) for f in functions):
        pytest.skip("the kernel objects hold no symbols")
    return functions


def test_hot_loops_spill_no_vectors(functions: list[Function]) -> None:
    found = list(spills(iter(functions)))
    assert not found, "\n".join(found)


def test_a_spill_would_be_found() -> None:
    inner = [
        (0x10, "vmovaps %zmm1,0x40(%rsp)"),
        (0x18, "vpdpbusd (%rax){1to16},%zmm1,%zmm2"),
        (0x20, "jne    10 <f+0x10>"),
    ]
    outer = [(0x8, "vmovaps %zmm3,(%rsp)"), *inner, (0x28, "jne    8 <f+0x8>")]
    assert len(list(spills(iter([Function("direct_tile<Q, 1>(MatmulArgs", outer)])))) == 1
    kept = [(a, t.replace("0x40(%rsp)", "0x40(%rdi)")) for a, t in outer]
    assert not list(spills(iter([Function("direct_tile<Q, 1>(MatmulArgs", kept)])))
