"""Rerankers against transformers and llama.cpp: cross-encoders, and a decoder that answers yes or no."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_models import CONTEXT, TEXTS, load, make_network, write_word_pieces
from hf_models import write_hf_model

import torchless
from torchless.errors import ContextLengthError, InvalidRequestError, UnsupportedError
from torchless.reranking import DEFAULT_INSTRUCTION

torch = pytest.importorskip("torch")

QUERY = "the cat"
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", {"num_labels": 1}),
    "xlm-roberta": (
        "XLMRobertaForSequenceClassification",
        {"num_labels": 1, "pad_token_id": 1, "max_position_embeddings": CONTEXT + 2, "type_vocab_size": 1},
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(name, folder, network) of a tiny cross-encoder."""
    folder = tmp_path_factory.mktemp("model")
    network = make_network(*FAMILIES[request.param])
    network.save_pretrained(folder)
    write_word_pieces(folder)
    return request.param, folder, network


def wanted_logits(folder: Path, network: Any, num_types: int) -> list[float]:
    """As transformers computes them, pairs and types of tokens by the library's tokenizer."""
    from tokenizers import Tokenizer

    library, found = Tokenizer.from_file(str(folder / "tokenizer.json")), []
    with torch.no_grad():
        for text in TEXTS:
            pair = library.encode(QUERY, text)
            types = torch.tensor([pair.type_ids]) if num_types > 1 else None
            output = network(torch.tensor([pair.ids]), token_type_ids=types)
            found.append(float(output.logits[0, 0]))
    return found


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_scores_match_transformers(model: Any, form: str, backend: str, tmp_path: Path) -> None:
    name, folder, network = model
    path = folder if form == "folder" else torchless.convert(folder, tmp_path / "model.gguf")[0]
    wanted = wanted_logits(folder, network, 2 if name == "bert" else 1)
    with load(path, backend) as llm:
        assert llm.info["makes"] == "scores"
        ranked = llm.rerank(QUERY, TEXTS)
        assert [item.index for item in ranked] == sorted(range(len(TEXTS)), key=lambda i: -wanted[i])
        for item in ranked:
            assert abs(item.logit - wanted[item.index]) < 1e-4
            assert abs(item.score - 1 / (1 + np.exp(-item.logit))) < 1e-12
        assert np.ptp(wanted) > 0.1
        assert llm.rerank(QUERY, TEXTS, top_n=2) == ranked[:2]


def test_llama_cpp_gives_the_same_scores(model: Any, tmp_path: Path) -> None:
    name, folder, _ = model
    if name == "bert":
        pytest.skip("llama.cpp gives both texts the first type")
    llama_cpp = pytest.importorskip("llama_cpp")
    [path] = torchless.convert(folder, tmp_path / "model.gguf")
    theirs = llama_cpp.Llama(str(path), embedding=True, n_ctx=CONTEXT, verbose=False, n_threads=1)
    theirs.tokenize = functools.partial(theirs.tokenize, special=True)
    with load(path) as llm:
        for text, item in zip(
            TEXTS, sorted(llm.rerank(QUERY, TEXTS), key=lambda item: item.index), strict=True
        ):
            logit = np.ravel(theirs.embed(f"{QUERY}[SEP]{text}", normalize=False))[0]
            assert abs(logit - item.logit) < 2e-3


def test_a_score_has_the_same_bits_alone_and_in_a_batch(model: Any) -> None:
    _, folder, _ = model
    with load(folder, kv="f16", threads=2) as llm, load(folder, kv="f16", threads=1) as one:
        together = {item.index: item.logit for item in llm.rerank(QUERY, TEXTS)}
        for index, text in enumerate(TEXTS):
            assert llm.rerank(QUERY, [text])[0].logit == one.rerank(QUERY, [text])[0].logit == together[index]


def test_a_pair_longer_than_the_context_is_refused_or_truncated(model: Any) -> None:
    _, folder, _ = model
    with load(folder) as llm:
        with pytest.raises(ContextLengthError, match=r"document 1 and the query have \d+ tokens together"):
            llm.rerank(QUERY, ["a", "cat " * 100])
        assert len(llm.rerank(QUERY, ["a", "cat " * 100], truncate=True)) == 2
        with pytest.raises(ContextLengthError, match="document 0"):
            llm.rerank("cat " * 100, ["a"], truncate=True)


def test_a_cross_encoder_does_nothing_else(model: Any) -> None:
    _, folder, _ = model
    with load(folder) as llm:
        with pytest.raises(InvalidRequestError, match="makes no embeddings"):
            llm.embed("a")
        with pytest.raises(InvalidRequestError, match="call rerank"):
            llm.generate("a")
        with pytest.raises(InvalidRequestError, match="takes a list"):
            llm.rerank(QUERY, "a")
        with pytest.raises(InvalidRequestError, match="top_n must be"):
            llm.rerank(QUERY, ["a"], top_n=0)
        with pytest.raises(InvalidRequestError, match="instruction"):
            llm.rerank(QUERY, ["a"], instruction="judge")
        assert llm.rerank(QUERY, []) == []


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    make_network("BertForSequenceClassification", {"num_labels": 3}).save_pretrained(tmp_path)
    write_word_pieces(tmp_path)
    with load(tmp_path) as llm, pytest.raises(UnsupportedError, match="has 3 classes"):
        llm.rerank(QUERY, ["a"])


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes text, whose vocabulary has the words yes and no."""
    folder = write_hf_model(tmp_path_factory.mktemp("decoder"), "F32", max_position_embeddings=1024)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    rare = sorted(vocabulary, key=lambda text: -vocabulary[text])[
        :2
    ]  # the last results of merges: words of their own
    content["model"]["merges"] = [
        merge for merge in content["model"]["merges"] if "".join(merge).replace(" ", "") not in rare
    ]
    for old, new in zip(rare, ("yes", "no"), strict=True):
        vocabulary[new] = vocabulary.pop(old)
    path.write_text(json.dumps(content))
    return folder


def test_a_decoder_judges_by_yes_and_no(decoder: Path) -> None:
    with load(decoder, task="rerank") as llm, load(decoder) as writer:
        ranked = llm.rerank(QUERY, TEXTS)
        no, yes = (writer.tokenizer.token_to_id(text) for text in ("no", "yes"))
        for item in ranked:
            prompt = (
                "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
                'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
            )
            pair = f"<Instruct>: {DEFAULT_INSTRUCTION}\n<Query>: {QUERY}\n<Document>: {TEXTS[item.index]}"
            answer = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
            ids = [
                token
                for text, special in ((prompt, True), (pair, False), (answer, True))
                for token in writer.tokenizer.encode(text, add_special_tokens=False, parse_special=special)
            ]
            logits = writer.logits(ids)[-1].astype(np.float64)
            assert abs(item.logit - (logits[yes] - logits[no])) < 1e-5
        other = llm.rerank(QUERY, TEXTS, instruction="Find the dog")
        assert {item.index: item.logit for item in other} != {item.index: item.logit for item in ranked}
        with pytest.raises(InvalidRequestError, match="task='rerank'"):
            writer.rerank(QUERY, TEXTS)


def test_a_decoder_without_these_words_cannot_judge(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="'yes' and 'no'"):
        load(write_hf_model(tmp_path / "plain", "F32"), task="rerank")


def test_the_command_line_prints_documents_best_first(
    model: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from torchless.cli import main

    _, folder, _ = model
    with load(folder, kv="f16") as llm:
        wanted = llm.rerank(QUERY, TEXTS)

    def run(*words: object) -> tuple[int, str]:
        return main([str(word) for word in words]), capsys.readouterr().out

    status, out = run("rerank", folder, QUERY, *TEXTS)
    assert status == 0
    assert [line.split()[1] for line in out.splitlines()] == [str(item.index) for item in wanted]
    (tmp_path / "lines.txt").write_text("\n".join(TEXTS))
    status, out = run(
        "rerank", "-m", folder, QUERY, "--file", tmp_path / "lines.txt", "--json", "--top-n", "2"
    )
    assert status == 0
    assert json.loads(out) == [{"index": i.index, "score": i.score, "logit": i.logit} for i in wanted[:2]]
    assert run("rerank", folder)[0] == 2
