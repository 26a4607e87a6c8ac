"""Writes a trained model as GGUF (Q8_0 matrices, F32 norms), with its tokenizer and chat template.

python export.py --model stories --run runs/stories --out ../../torchless/data/stories.gguf
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from chat import ASSISTANT, END, END_OF_TEXT, SPECIAL_TOKENS, USER
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, quants
from model import CONFIGS, Config
from tokenizers import Tokenizer

CHAT_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- if not loop.first -%}{{ raise_exception('The system message must be the first one.') }}{%- endif -%}"
    "{%- set ns.system = message['content'] + '\\n\\n' -%}"
    "{%- elif message['role'] == 'user' -%}"
    f"{{{{- '{USER}' + ns.system + message['content'] + '{END}' -}}}}"
    "{%- set ns.system = '' -%}"
    "{%- elif message['role'] == 'assistant' -%}"
    f"{{{{- '{ASSISTANT}' + message['content'] + '{END}' -}}}}"
    "{%- else -%}"
    "{{ raise_exception('This model knows the roles system, user and assistant, not '"
    " + message['role'] + '.') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}' -}}}}{{%- endif -%}}"
)
DESCRIPTION = {
    "stories": "A very small storyteller, trained by torchless on text from its own story grammar.",
    "stories-draft": "The draft model of torchless stories: same vocabulary, a fraction of the size.",
}
NAMES = {"stories": "torchless stories", "stories-draft": "torchless stories draft"}


def add_metadata(writer: GGUFWriter, model: str, config: Config) -> None:
    """The llama.* hyperparameters and the general.* description."""
    writer.add_name(NAMES[model])
    writer.add_description(DESCRIPTION[model])
    writer.add_author("torchless")
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(2)
    writer.add_sampling_temp(0.8)
    writer.add_sampling_top_p(0.95)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)


def add_tokenizer(writer: GGUFWriter, path: Path) -> None:
    """tokenizer.ggml.*: the byte-level BPE, its special tokens, and the chat template."""
    tokenizer = Tokenizer.from_file(str(path))
    merges = json.loads(path.read_text())["model"]["merges"]
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    types = [TokenType.CONTROL if token in SPECIAL_TOKENS else TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_eot_token_id(tokenizer.token_to_id(END))
    writer.add_pad_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def export(model: str, checkpoint: Path, tokenizer: Path, out: Path) -> None:
    """Write `out`: tensors named as llama.cpp names them, rows along the last axis."""
    config = CONFIGS[model]
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    writer = GGUFWriter(partial, "llama")
    add_metadata(writer, model, config)
    add_tokenizer(writer, tokenizer)
    for name, tensor in state.items():
        array = np.ascontiguousarray(tensor.float().numpy())
        if array.ndim == 2:
            packed = quants.quantize(array, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(out)  # readers of the old file keep it; nobody sees half a file
    print(f"{out}: {out.stat().st_size} bytes, {sum(t.numel() for t in state.values())} parameters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=sorted(CONFIGS), default="stories")
    parser.add_argument("--run", type=Path, default=Path("runs/stories"))
    parser.add_argument("--tokenizer", type=Path, default=Path("runs/tokenizer.json"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    export(options.model, options.run / "checkpoint.pt", options.tokenizer, options.out)


if __name__ == "__main__":
    main()
