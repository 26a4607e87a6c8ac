"""Tiny random models made with Hugging Face transformers, and what is asked of every family that runs them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from executors import logits_of, logits_of_batch, open_executor

from torchless.conversion.convert import convert
from torchless.weights.gguf_writer import write_gguf
from torchless.weights.open import open_source

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB, LENGTH = 400, 48
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": [1, 2],
}


def tiny_model(folder: Path, class_name: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Ids and logits of a family's model, which is saved to `folder`; skips where transformers lacks the family."""
    if not hasattr(transformers, class_name):
        pytest.skip(f"transformers {transformers.__version__} has no {class_name}")
    return make_model(folder, getattr(transformers, class_name)(**{**SIZES, **settings}))


def make_model(
    folder: Path, config: Any, network_class: Any = None, vocab_size: int = VOCAB
) -> tuple[Any, Any]:
    """Saves a random model whose experts and logits differ from token to token; returns ids and logits.

    The logits are those of the saved weights, computed in float64. `network_class` is the class of the model where it
    is not the configuration's own one that writes text; ids are below `vocab_size`.
    """
    from hf_models import write_tokenizer

    generator = torch.Generator().manual_seed(3)
    from_config = (
        network_class._from_config if network_class else transformers.AutoModelForCausalLM.from_config
    )

    def make() -> Any:
        return from_config(copy.deepcopy(config), attn_implementation="eager").eval()

    network = make().float()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point() and tensor.dim() > 1:
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)
        for tensor in network.parameters():
            if tensor.dim() == 1:  # norms, biases, sinks
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
        for name, tensor in network.named_parameters():
            if config.model_type.startswith(("gemma3n", "gemma4")) and name.endswith("q_norm.weight"):
                tensor.mul_(
                    tensor.shape[0] ** -0.5
                )  # no other factor keeps these scores from one-hot weights
            if name.endswith(
                "A_log"
            ):  # delta-nets that remember some tokens, whatever the library starts with
                tensor.copy_((0.02 + 0.6 * torch.rand(tensor.shape, generator=generator)).log())
        for name, tensor in network.named_buffers():
            if name.endswith("layer_scalar"):
                tensor.copy_(0.7 + 0.5 * torch.rand(tensor.shape, generator=generator))
            if name.endswith("e_score_correction_bias"):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        ids = torch.randint(0, vocab_size, (3, LENGTH), generator=generator)
    network.save_pretrained(folder)
    write_tokenizer(folder)
    return ids.tolist(), float64_logits(make, network, ids)


def float64_logits(make: Callable[[], Any], network: Any, ids: Any) -> Any:
    """The logits of `network`, computed in float64 throughout by one that `make` makes and that gets its weights.

    ``network.double()`` alone is not that: the library's models turn values to float32 in norms, rotations, routers and
    delta rules. With float32 a delta-net's logits are off by 5e-5 and, on some machines, by more than 1e-4.
    """
    with ExitStack() as stack:
        for name in ("float32", "float"):  # two names of one type
            stack.enter_context(mock.patch.object(torch, name, torch.float64))
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        exact = make().double()
        if hasattr(exact, "set_experts_implementation"):
            exact.set_experts_implementation("eager")  # the others multiply no float64
        exact.load_state_dict(network.state_dict())
        with torch.no_grad():
            return exact(ids).logits.numpy()


def check_logits(
    folder: Path,
    ids: Any,
    expected: Any,
    form: str,
    backend: str,
    tmp_path: Path,
    reference_tolerance: float = 2e-6,
) -> None:
    """Logits of the folder, or of the GGUF file made of it, for prompts in one piece, in pieces and token by token.

    The reference backend computes in float64 like `expected`, but its logits are float32.
    """
    if backend == "cpu":
        pytest.importorskip("torchless._core")
    path = folder
    if form == "gguf":
        [path] = convert(folder, tmp_path / "model.gguf")
    executor = open_executor(path, backend, kv="f32", threads=2)
    assert np.abs(expected).max() > 1
    tolerance = 1e-4 if backend == "cpu" else reference_tolerance
    for chunk in (LENGTH, 7, 1) if backend == "cpu" else (LENGTH,):
        for sequence, logits in zip(ids, expected, strict=True):
            np.testing.assert_allclose(logits_of(executor, sequence, chunk), logits, rtol=0, atol=tolerance)


def check_round_trip(folder: Path, tmp_path: Path, norm_tolerance: float = 0.0) -> None:
    """From the folder to GGUF and back: every tensor and every setting; norms within a tolerance."""
    from safetensors.numpy import load_file

    convert(folder, tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "back")
    stored, back = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    assert stored.keys() == back.keys()
    for key, values in stored.items():
        tolerance = norm_tolerance if key.endswith("norm.weight") else 0.0
        np.testing.assert_allclose(back[key], values, rtol=0, atol=tolerance)
    again = transformers.AutoConfig.from_pretrained(tmp_path / "back").to_dict()
    wanted = transformers.AutoConfig.from_pretrained(folder).to_dict()
    assert {**again, "_name_or_path": ""} == {**wanted, "_name_or_path": ""}


def check_llama_cpp(folder: Path, ids: Any, expected: Any, tmp_path: Path, most: float = 1e-6) -> None:
    """llama.cpp loads the GGUF file made of the folder and computes the same logits, but for a share `most` of them."""
    llama_cpp = pytest.importorskip("llama_cpp")
    [path] = convert(folder, tmp_path / "model.gguf")
    theirs = llama_cpp.Llama(
        str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
    )
    theirs.eval(ids[0])
    found = np.array(theirs.scores[:LENGTH])
    assert np.square(found - expected[0]).mean() < most * np.square(expected[0]).mean()


def check_promise(folder: Path, ids: Any, lora: Any = None) -> None:
    """The same bits for any batch, chunk and number of threads."""
    pytest.importorskip("torchless._core")
    one, two = (open_executor(folder, "cpu", kv="f16", threads=threads, lora=lora) for threads in (1, 2))
    alone = [logits_of(one, sequence, LENGTH) for sequence in ids]
    for executor, chunk in ((one, 1), (two, 5), (two, LENGTH)):
        for sequence, expected in zip(ids, alone, strict=True):
            np.testing.assert_array_equal(logits_of(executor, sequence, chunk), expected)
    for found, expected in zip(logits_of_batch(two, ids, (16, 3, 1)), alone, strict=True):
        np.testing.assert_array_equal(found, expected)


def check_foreign_file(folder: Path, ids: Any, expected: Any, tmp_path: Path) -> None:
    """A GGUF file that does not hold config.json becomes a folder with which transformers computes the same logits."""
    [path] = convert(folder, tmp_path / "model.gguf")
    source = open_source(path)
    metadata = {key: value for key, value in source.metadata.items() if not key.startswith("torchless.")}
    tensors = ((i.name, i.shape, i.type, iter([source.raw(i.name)])) for i in source.tensors.values())
    write_gguf(tmp_path / "foreign.gguf", metadata, tensors)
    convert(tmp_path / "foreign.gguf", tmp_path / "back")
    network = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "back", attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        found = network(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
