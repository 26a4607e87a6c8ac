"""Tiny random encoders made with Hugging Face transformers, with a tokenizer of word pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import torchless
from torchless.backends.base import KvType

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB, CONTEXT = 600, 64
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
}
TEXTS = ["the cat sat on the mat", "a", "an other cat, then 123 ate", "ten rats at the hat " * 4]


def write_word_pieces(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    library.train_from_iterator(TEXTS * 3, trainer)
    ids = [(text, library.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
    template = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    library.post_processor = processors.TemplateProcessing(*template, ids)
    library.save(str(folder / "tokenizer.json"))
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "mask_token": "[MASK]"}))


def make_network(class_name: str, settings: dict[str, Any]) -> Any:
    """A random model whose states differ from token to token."""
    if not hasattr(transformers, class_name):
        pytest.skip(f"transformers {transformers.__version__} has no {class_name}")
    model_class = getattr(transformers, class_name)
    config = model_class.config_class(**{**SIZES, **settings})
    network = model_class._from_config(config, attn_implementation="eager").float().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in network.parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() > 1:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)
            else:
                tensor.add_(0.2 * noise)
    return network


def load(path: Path, backend: str = "cpu", kv: KvType = "f32", **options: Any) -> torchless.LLM:
    if backend == "cpu":
        pytest.importorskip("torchless._core")
    return torchless.load(path, backend=backend, kv=kv, **options)
