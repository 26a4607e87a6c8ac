"""Reads a GGUF back with a NumPy float64 forward pass of its own, compares it with PyTorch, tells stories.

python verify.py ../../torchless/data/stories.gguf --run runs/stories --stories 4
python verify.py ../../torchless/data/stories.gguf --draft ../../torchless/data/stories-draft.gguf
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, quants
from numpy.typing import NDArray

Array = NDArray[np.float64]


class NumpyLlama:
    """A GGUF of architecture "llama", in float64, with a key/value cache; independent of model.py."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors: dict[str, Array] = {
            t.name: quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors
        }
        self.num_layers = int(self.fields["llama.block_count"])
        self.num_heads = int(self.fields["llama.attention.head_count"])
        self.num_kv_heads = int(self.fields["llama.attention.head_count_kv"])
        self.head_dim = int(self.fields["llama.rope.dimension_count"])
        self.eps = float(self.fields["llama.attention.layer_norm_rms_epsilon"])
        self.base = float(self.fields["llama.rope.freq_base"])
        self.reset()

    def reset(self) -> None:
        """Forget the context."""
        self.keys: list[Array] = [np.zeros((0, self.num_kv_heads, self.head_dim))] * self.num_layers
        self.values: list[Array] = list(self.keys)

    def _norm(self, x: Array, name: str) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.eps) * self.tensors[name]

    def _rope(self, x: Array, positions: NDArray[np.int64]) -> Array:
        angle = positions[:, None, None] * self.base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)  # the pair as a complex number
        return np.stack((turned.real, turned.imag), -1).reshape(x.shape)

    def __call__(self, tokens: list[int]) -> Array:
        """Logits [len(tokens), vocab] of `tokens`, which follow the context."""
        start, count = len(self.keys[0]), len(tokens)
        positions = np.arange(start, start + count)
        x = self.tensors["token_embd.weight"][tokens]
        for layer in range(self.num_layers):
            w = {
                n: self.tensors[f"blk.{layer}.{n}.weight"].T
                for n in ("attn_q", "attn_k", "attn_v", "attn_output")
            }
            h = self._norm(x, f"blk.{layer}.attn_norm.weight")
            q = self._rope((h @ w["attn_q"]).reshape(count, self.num_heads, -1), positions)
            k = self._rope((h @ w["attn_k"]).reshape(count, self.num_kv_heads, -1), positions)
            v = (h @ w["attn_v"]).reshape(count, self.num_kv_heads, -1)
            self.keys[layer] = k = np.concatenate((self.keys[layer], k))
            self.values[layer] = v = np.concatenate((self.values[layer], v))
            outputs = []
            for head in range(self.num_heads):
                kv_head = head * self.num_kv_heads // self.num_heads
                scores = q[:, head] @ k[:, kv_head].T / np.sqrt(self.head_dim)
                scores = np.where(np.arange(len(k)) <= positions[:, None], scores, -np.inf)
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                outputs.append(weights / weights.sum(-1, keepdims=True) @ v[:, kv_head])
            x = x + np.concatenate(outputs, -1) @ w["attn_output"]
            h = self._norm(x, f"blk.{layer}.ffn_norm.weight")
            gate = h @ self.tensors[f"blk.{layer}.ffn_gate.weight"].T
            up = h @ self.tensors[f"blk.{layer}.ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.tensors[f"blk.{layer}.ffn_down.weight"].T
        return self._norm(x, "output_norm.weight") @ self.tensors["token_embd.weight"].T

    def generate(
        self, prompt: list[int], temperature: float, seed: int, limit: int = 400
    ) -> tuple[list[int], bool]:
        """New tokens up to an end token (not included), and whether one came before `limit`."""
        self.reset()
        rng = np.random.default_rng(seed)
        ends = {self.fields["tokenizer.ggml.eos_token_id"], self.fields["tokenizer.ggml.eot_token_id"]}
        tokens: list[int] = []
        logits = self(prompt)[-1]
        while len(tokens) < limit:
            if temperature == 0:
                token = int(logits.argmax())
            else:
                p = np.exp((logits - logits.max()) / temperature)
                token = int(rng.choice(len(p), p=p / p.sum()))
            if token in ends:
                return tokens, True
            tokens.append(token)
            logits = self([token])[-1]
        return tokens, False


def compare(model: NumpyLlama, name: str, run: Path, rows: list[list[int]]) -> None:
    """Logits of the file against those of the PyTorch model with unquantised and with the file's weights."""
    import torch
    from model import CONFIGS, Llama

    twin = Llama(CONFIGS[name])
    twin.load_state_dict(torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True))
    trained, same = 0.0, 0.0
    with torch.no_grad():
        logits = [twin(torch.tensor([row]))[0].double().numpy() for row in rows]
        twin.load_state_dict({k: torch.from_numpy(v).float() for k, v in model.tensors.items()})
        exact = [twin(torch.tensor([row]))[0].double().numpy() for row in rows]
    agree, noise = [], []
    for row, a, b in zip(rows, logits, exact, strict=True):
        model.reset()
        found = model(row)
        trained, same = max(trained, abs(found - a).max()), max(same, abs(found - b).max())
        noise.append(np.sqrt(((found - a) ** 2).mean() / a.var()))
        agree.append((found.argmax(-1) == a.argmax(-1)).mean())
    print(
        f"largest logit difference: {same:.2e} with the file's weights, {trained:.2e} with the trained ones"
    )
    print(f"quantisation noise: {100 * np.mean(noise):.2f} % of the logits' standard deviation")
    print(f"greedy token as unquantised: {100 * np.mean(agree):.2f} %")
    if same > 2e-3 or np.mean(noise) > 0.03:
        raise SystemExit("the file does not compute what was trained")


def nats_per_token(model: NumpyLlama, rows: list[list[int]]) -> tuple[float, NDArray[np.int64]]:
    """Mean cross entropy and the greedy tokens over `rows`."""
    losses, greedy = [], []
    for row in rows:
        model.reset()
        logits = model(row[:-1])
        top = logits.max(-1)
        log_sum = np.log(np.exp(logits - top[:, None]).sum(-1)) + top
        losses.append(log_sum - logits[np.arange(len(row) - 1), row[1:]])
        greedy.append(logits.argmax(-1))
    return float(np.concatenate(losses).mean()), np.concatenate(greedy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="stories")
    parser.add_argument("--run", type=Path, help="compare with the checkpoint of this run")
    parser.add_argument("--draft", type=Path, help="measure how often this draft agrees")
    parser.add_argument("--tokenizer", type=Path, default=Path("runs/tokenizer.json"))
    parser.add_argument("--rows", type=int, default=8, help="validation rows to use")
    parser.add_argument("--stories", type=int, default=0, help="samples to print")
    parser.add_argument("--seed", type=int, default=0, help="first sampling seed")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--prompt", default="Once upon a time")
    options = parser.parse_args()
    from tokenizer import load_or_train
    from train import VALIDATION_SEED, rows

    tokenizer = load_or_train(options.tokenizer)
    model = NumpyLlama(options.file)
    held_out = [row.tolist() for row in islice(rows(tokenizer, VALIDATION_SEED, 512), options.rows)]
    if options.run:
        compare(model, options.model, options.run, [row[:-1] for row in held_out])
    if options.rows:
        loss, greedy = nats_per_token(model, held_out)
        print(f"{options.file.name}: {loss:.4f} nats per token on {greedy.size} validation tokens")
        if options.draft:
            loss, guessed = nats_per_token(NumpyLlama(options.draft), held_out)
            share = 100 * (guessed == greedy).mean()
            print(f"{options.draft.name}: {loss:.4f} nats per token, same greedy token on {share:.1f} %")
    for seed in range(options.seed, options.seed + options.stories):
        prompt = tokenizer.encode(options.prompt).ids
        tokens, ended = model.generate(prompt, options.temperature, seed)
        print(f"--- seed {seed}, {len(tokens)} tokens, {'ended' if ended else 'NOT ENDED'}")
        print(options.prompt + tokenizer.decode(tokens))


if __name__ == "__main__":
    main()
