"""Tiny model files for the command line's tests, written by the gguf package (not by torchless)."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, LAYERS, FFN, CONTEXT = 32, 4, 2, 64, 256
WORDS = ["▁once", "▁upon", "▁a", "▁time", "▁the", "▁cat", "▁sat", "▁on", "▁mat", "▁dog", "▁ran"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
)


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """A SentencePiece vocabulary: control tokens, all bytes, letters, and words with their beginnings.

    Words are put together letter by letter from the left, so each beginning must be a token.
    """
    letters = [*"abcdefghijklmnopqrstuvwxyz", "▁", "\n", ":", ".", ","]
    parts = list(dict.fromkeys(word[:end] for word in WORDS for end in range(2, len(word) + 1)))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *parts]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(letters) + len(parts))]
    scores = [0.0] * 259 + [-100.0] * len(letters) + [-float(i + 1) for i in range(len(parts))]
    return tokens, scores, types


def write_model(
    path: Path, *, chat_template: str | None = None, marks: bool = False, **overrides: object
) -> Path:
    """Writes a random Llama of 2 layers with F32 weights. Overrides replace metadata (None leaves it out).

    With `marks` it has Code Llama's tokens around a gap.
    """
    tokens, scores, types = vocabulary()
    if marks:
        tokens += ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
        scores, types = scores + [0.0] * 4, types + [1] * 4
    metadata: dict[str, object] = {
        "general.name": "tiny test model",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        **overrides,
    }
    writer = gguf.GGUFWriter(path, str(overrides.pop("architecture", "llama")))
    metadata.pop("architecture", None)
    for key, value in metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, tensor in _tensors(len(tokens)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(vocab_size: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.normal(size=(rows, columns)) / np.sqrt(columns)).astype(np.float32)

    tensors = {
        "token_embd.weight": matrix(vocab_size, WIDTH),
        "output_norm.weight": np.ones(WIDTH, np.float32),
    }
    tensors["output.weight"] = matrix(vocab_size, WIDTH) * 3
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"blk.{layer}.{name}.weight"] = matrix(WIDTH, WIDTH)
        tensors[f"blk.{layer}.ffn_gate.weight"] = matrix(FFN, WIDTH)
        tensors[f"blk.{layer}.ffn_up.weight"] = matrix(FFN, WIDTH)
        tensors[f"blk.{layer}.ffn_down.weight"] = matrix(WIDTH, FFN)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = np.ones(WIDTH, np.float32)
    return tensors
