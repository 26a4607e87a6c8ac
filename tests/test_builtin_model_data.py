"""The built-in model: a deterministic, consistent text generator, and two small, complete files."""

from __future__ import annotations

import importlib
import random
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2.sandbox
import pytest

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "scripts" / "builtin_model"
DATA = ROOT / "torchless" / "data"
FILES = {"stories.gguf": 3_000_000, "stories-draft.gguf": 400_000}


MODULES = ("words", "plots", "story", "chat", "grammar")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The generator's modules, imported from scripts/ for one test and forgotten afterwards."""
    if not RECIPE.is_dir():
        pytest.skip("the recipe is not part of the installed package")
    monkeypatch.syspath_prepend(str(RECIPE))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    for name in MODULES:
        sys.modules.pop(name, None)


def fields_of(name: str) -> dict[str, Any]:
    gguf = pytest.importorskip("gguf")
    if not (DATA / name).exists():
        pytest.fail(f"{DATA / name} is missing: see docs/built-in-model.md")
    reader = gguf.GGUFReader(DATA / name)
    return {key: field.contents() for key, field in reader.fields.items()}


def test_the_same_seed_writes_the_same_text(recipe: SimpleNamespace) -> None:
    first, again, other = (list(islice(recipe.grammar.documents(seed), 20)) for seed in (3, 3, 4))
    assert first == again
    assert not set(first) & set(other)


def test_stories_have_their_length_and_end_properly(recipe: SimpleNamespace) -> None:
    rng = random.Random(0)
    for _ in range(300):
        text = recipe.story.write_story(rng).text
        assert 60 <= len(text.split()) <= 180
        assert text[-1] in ".!?"
        assert text.count('"') % 2 == 0, text
        assert not re.search(r"[{}]|  |\ba [aeio]", text), text


def test_every_plot_can_be_told(recipe: SimpleNamespace) -> None:
    rng = random.Random(1)
    for plot in recipe.story.PLOTS:
        story = recipe.story.write_story(rng, recipe.story.Request(plot=plot))
        assert story.values["H"] in story.text


def test_a_request_is_honoured(recipe: SimpleNamespace) -> None:
    rng = random.Random(2)
    story = recipe.story.write_story(rng, recipe.story.Request(kind="fox", name="Ruby"))
    assert "fox" in story.text
    assert story.text.count("Ruby") >= 3
    assert "umbrella" in recipe.story.write_story(rng, recipe.story.Request(noun="umbrella")).text


def test_a_girl_is_she_throughout(recipe: SimpleNamespace) -> None:
    rng = random.Random(3)
    for _ in range(50):
        values = recipe.story.write_story(rng, recipe.story.Request(kind="girl")).values
        assert (values["he"], values["him"], values["his"]) == ("she", "her", "her")


def test_chats_alternate_and_close_every_turn(recipe: SimpleNamespace) -> None:
    rng = random.Random(4)
    user, assistant, end = recipe.chat.USER, recipe.chat.ASSISTANT, recipe.chat.END
    turn = "".join(
        re.escape(mark) + text for mark, text in ((user, "[^<]+"), (end, ""), (assistant, "[^<]+"), (end, ""))
    )
    for _ in range(100):
        assert re.fullmatch(
            f"(?:{turn}){{1,3}}{re.escape(recipe.chat.END_OF_TEXT)}", recipe.chat.write_chat(rng)
        )


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_small(name: str) -> None:
    assert 100_000 < (DATA / name).stat().st_size <= FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_the_file_describes_itself(name: str) -> None:
    fields = fields_of(name)
    tokens = fields["tokenizer.ggml.tokens"]
    assert fields["general.architecture"] == "llama"
    assert fields["general.name"].startswith("torchless stories")
    assert fields["general.license"] == "MIT"
    assert fields["llama.vocab_size"] == len(tokens) == len(set(tokens)) == 1024
    assert tokens[fields["tokenizer.ggml.eos_token_id"]] == "<|endoftext|>"
    assert tokens[fields["tokenizer.ggml.eot_token_id"]] == "<|end|>"
    assert sum(len(token) == 1 for token in tokens) == 256  # every byte has a token: any input encodes
    assert [i for i, kind in enumerate(fields["tokenizer.ggml.token_type"]) if kind == 3] == [0, 1, 2, 3]
    assert fields["tokenizer.ggml.add_bos_token"] is False


def test_both_files_share_one_vocabulary() -> None:
    big, draft = (fields_of(name) for name in FILES)
    for key in ("tokens", "merges", "token_type"):
        assert big[f"tokenizer.ggml.{key}"] == draft[f"tokenizer.ggml.{key}"]


@pytest.fixture
def template() -> jinja2.Template:
    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(fields_of("stories.gguf")["tokenizer.chat_template"])


def test_the_chat_template_writes_the_training_format(template: jinja2.Template) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "A story."},
    ]
    text = template.render(messages=messages, add_generation_prompt=True)
    assert (
        text == "<|user|>Be kind.\n\nHello!<|end|><|assistant|>Hi!<|end|><|user|>A story.<|end|><|assistant|>"
    )
    assert template.render(messages=messages[1:2]) == "<|user|>Hello!<|end|>"


def test_the_chat_template_names_an_unknown_role(template: jinja2.Template) -> None:
    with pytest.raises(jinja2.TemplateError, match="not tool"):
        template.render(messages=[{"role": "tool", "content": "x"}])
