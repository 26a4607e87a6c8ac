"""The tree itself: house rules that a machine can check, and that a file dropped into a folder is found."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "torchless"
SOURCE_FOLDERS = ("torchless", "csrc", "tests", "benchmarks", "scripts", "docs", ".ci")
BUDGETS = {"torchless": 330, "benchmarks": 330, "scripts": 330, "tests": 500, "csrc": 550}
"""Lines of a file, a tenth above what the style guide asks for."""
FUNCTION_BUDGET = 60
ORACLES = {"torch", "transformers", "gguf", "safetensors", "llama_cpp"}
"""Libraries that tests and benchmarks compare with. The package never imports them."""
HEAVY = ("tokenizers", "jinja2", "rich", "click", "huggingface_hub", "ml_dtypes", "torchless._core")


def _files(*folders: str) -> Iterator[Path]:
    """Text files of these folders, caches and what is built left out."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            hidden = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"} & {
                *path.parts
            }
            if path.is_file() and not hidden and path.suffix not in (".so", ".gguf", ".png", ".pyc"):
                yield path


def _python_files(*folders: str) -> list[Path]:
    return [path for path in _files(*folders) if path.suffix == ".py"]


def _offences(pattern: str, paths: Iterator[Path]) -> list[str]:
    """``file:line: text`` of every line that matches, this file left out."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


def _all_text() -> Iterator[Path]:
    yield from _files(*SOURCE_FOLDERS)
    yield from (path for path in sorted(ROOT.glob("*")) if path.suffix in (".md", ".toml", ".txt"))


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert _offences(r"(?<![\w.~-])/(work|root|home|Users|mnt)/\w", _all_text()) == []


def test_nothing_is_left_to_do() -> None:
    assert _offences(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError|unimplemented", _all_text()) == []


@pytest.mark.parametrize("folder", BUDGETS)
def test_files_keep_their_line_budget_or_say_why_not(folder: str) -> None:
    too_long = []
    for path in _files(folder):
        text = path.read_text(encoding="utf-8")
        if path.name == "_core.pyi":  # generated (scripts/stubs)
            continue
        if text.count("\n") > BUDGETS[folder] and "line budget" not in text:
            too_long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
    assert too_long == []


def test_functions_fit_on_a_screen() -> None:
    too_long = []
    for path in _python_files("torchless", "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                length = (node.end_lineno or 0) - (first or 0)
                if length > FUNCTION_BUDGET:
                    too_long.append(f"{path.relative_to(ROOT)}: {node.name} has {length} lines")
    assert too_long == []


def test_every_python_module_says_what_it_owns() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _python_files("torchless", "tests", "benchmarks", "scripts")
        if path.name != "__init__.py" or path.is_relative_to(PACKAGE)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_every_header_and_script_says_what_it_owns() -> None:
    silent = []
    for path in _files("csrc", "scripts", ".ci"):
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.suffix == ".h" and not lines[0].startswith("//"):
            silent.append(str(path.relative_to(ROOT)))
        if not path.suffix and lines[0].endswith("bash") and not lines[1].startswith("# "):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_scripts_stop_at_the_first_error_and_are_executable() -> None:
    scripts = [p for p in _files("scripts", ".ci") if p.read_text(encoding="utf-8").startswith("#!")]
    assert scripts
    for path in scripts:
        assert path.stat().st_mode & 0o100, f"{path} is not executable"
        text = path.read_text(encoding="utf-8")
        assert "bash" not in text.splitlines()[0] or "set -euo pipefail" in text, path


def _commands() -> list[Path]:
    """What docs tell people to start: scripts and benchmarks."""
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    names = ("constraints", "plan_predictions", "sampling", "server", "speculation", "table")
    return sorted(scripts) + [ROOT / "benchmarks" / f"{name}.py" for name in names]


@pytest.mark.parametrize("path", _commands(), ids=lambda path: path.name)
def test_commands_of_the_tree_tell_their_usage_and_do_nothing_else(path: Path) -> None:
    command = [path] if not path.suffix else [sys.executable, path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--help"], capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usage:" in done.stdout and "Traceback" not in done.stderr


def test_the_package_imports_no_oracle() -> None:
    found = []
    for path in _python_files("torchless"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found += [f"{path}: {name}" for name in names if name.split(".")[0] in ORACLES]
    assert found == []


def test_ci_runs_the_readme_test_command() -> None:
    command = 'pip install -e ".[test]" && pytest'
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_importing_torchless_loads_nothing_heavy() -> None:
    code = f"import sys, torchless; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert _python(code, ROOT).strip() == "[]"


def test_the_table_of_model_families_is_current() -> None:
    command = [sys.executable, ROOT / "scripts" / "model_table", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_walk_through_a_model_family_shows_the_real_files() -> None:
    shown = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "add-a-model.md").read_text("utf-8"), re.DOTALL
    )
    files = ("torchless/models/qwen3.py", "torchless/weights/names.py", "torchless/conversion/families.py")
    files = (*files, "tests/models/test_dense_families.py")
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in files]
    assert len(shown) > 6
    assert [block for block in shown if not any(block in text for text in texts)] == []


# -- one change, one address ----------------------------------------------------------------------

TOYS = {
    "models/toy_family.py": """
        '''A toy.'''
        ARCHITECTURES = ("toy-architecture",)
        """,
    "quants/toy_format.py": """
        '''A toy.'''
        import numpy as np
        from torchless.quants import Format
        FORMAT = Format("TOY_8", 200, 1, 1, lambda blocks: blocks.astype(np.float32))
        """,
    "backends/toy_backend/__init__.py": """
        '''A toy.'''
        """,
    "cli/verbs/toy_verb.py": """
        '''A toy.'''
        import click
        @click.command("toy_verb", short_help="A toy.")
        def command() -> None:
            click.echo("the toy runs")
        """,
    "sampling/steps/toy_step.py": """
        '''A toy.'''
        ORDER = 35
        def build(params, eos_ids):
            def forbid_all_but_two(candidates, history):
                candidates.logits[:] = np.where(np.arange(len(candidates.logits)) == 2, 0, -np.inf)
            import numpy as np
            return forbid_all_but_two
        """,
    "server/routes/toy_route.py": """
        '''A toy.'''
        from starlette.responses import PlainTextResponse
        from torchless.server.calls import get
        async def toy(call):
            return PlainTextResponse("the toy runs")
        ROUTES = [get("/toy", toy)]
        """,
    "server/tool_parsers/toy_parser.py": """
        '''A toy.'''
        from torchless.server.tool_styles import ToolStyle
        STYLE = ToolStyle("toy", 1, lambda template: "toy" in template, ("<toy>",), ("</toy>",), lambda text, tools: [])
        """,
    "engine/drafters/toy_drafter.py": """
        '''A toy.'''
        from torchless.engine.drafters import Guess
        class Toy:
            is_free = True
            def draft(self, sequences, num_tokens, width):
                return [[Guess([7] * num_tokens, ["toy"] * num_tokens)] for _ in sequences]
            def forget(self, sequence): pass
            def close(self): pass
        def build(context):
            return Toy()
        """,
}


@pytest.fixture(scope="module")
def with_toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one toy file of each kind dropped in and no other change."""
    root = tmp_path_factory.mktemp("with_toys")
    ignored = shutil.ignore_patterns("__pycache__", "*.gguf")
    shutil.copytree(PACKAGE, root / "torchless", ignore=ignored)
    for name, code in TOYS.items():
        path = root / "torchless" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(code).lstrip(), encoding="utf-8")
    return root


def test_a_dropped_model_family_is_found(with_toys: Path) -> None:
    code = "from torchless.models import find_family; print(find_family('toy-architecture').__name__)"
    assert _python(code, with_toys).strip() == "torchless.models.toy_family"


def test_a_dropped_format_is_found(with_toys: Path) -> None:
    code = "from torchless.quants import by_id, by_name; print(by_name('TOY_8').id, by_id(200).name)"
    assert _python(code, with_toys).strip() == "200 TOY_8"


def test_a_dropped_backend_is_found(with_toys: Path) -> None:
    code = "from torchless.loading import backend_names; print(backend_names())"
    assert "toy_backend" in _python(code, with_toys)


def test_a_dropped_verb_runs_and_is_listed(with_toys: Path) -> None:
    code = "import sys; sys.argv[1:] = [{!r}]; from torchless.cli import main; sys.exit(main())"
    assert _python(code.format("toy_verb"), with_toys).strip() == "the toy runs"
    assert re.search(r"toy_verb\s+A toy\.", _python(code.format("--help"), with_toys))


def test_a_dropped_sampling_step_runs(with_toys: Path) -> None:
    code = """
import numpy as np
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams
logits = np.array([9, 5, 1, 0], np.float32)
print(Sampler(SamplingParams(temperature=0, seed=1)).pick(logits, np.array([0], np.int32)))
"""
    assert _python(code, with_toys).strip() == "2"


def test_a_dropped_drafter_drafts(with_toys: Path) -> None:
    code = """
from torchless.speculative import speculative_settings
from torchless.engine.drafters import DrafterContext, build_drafter
print(speculative_settings({}).drafters, speculative_settings({"speculative": "toy-drafter"}).drafters)
print(build_drafter("toy-drafter", DrafterContext()).draft([None], 2, 1)[0][0].token_ids)
"""
    found = _python(code, with_toys).splitlines()
    assert found == ["('prompt-lookup', 'toy-drafter') ('toy-drafter',)", "[7, 7]"]


def test_a_dropped_route_and_a_dropped_style_of_tool_calls_are_found(with_toys: Path) -> None:
    pytest.importorskip("starlette", reason="the server's libraries are not installed")
    code = """
from torchless.server.application import app
from torchless.server.tool_styles import find_style
print([route.path for route in app().routes if route.path == "/toy"], find_style("a toy template").name)
"""
    assert _python(code, with_toys).strip() == "['/toy'] toy"


def test_info_lists_what_was_found(with_toys: Path) -> None:
    code = "import sys; sys.argv[1:] = ['info', '--json']; from torchless.cli import main; sys.exit(main())"
    found = json.dumps(json.loads(_python(code, with_toys))["found"])
    for name in (
        "toy-architecture",
        "TOY_8",
        "toy_backend",
        "toy_verb",
        "toy_step",
        "toy_drafter",
        "toy_route",
        "toy_parser",
    ):
        assert name in found


def _python(code: str, root: Path) -> str:
    """Output of a fresh interpreter that imports torchless from `root`, whatever is installed."""
    # An editable installation puts a finder before sys.path, which would win over the copy.
    prelude = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "Redirect" not in type(finder).__name__]
sys.path.insert(0, {str(root)!r})
"""
    command = [sys.executable, "-c", (prelude if root != ROOT else "") + code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
