"""The Llama architecture in PyTorch: RMSNorm, interleaved RoPE, grouped-query attention, SwiGLU, tied head.

RoPE turns the pairs (2i, 2i+1), as a GGUF of architecture "llama" stores them: export permutes nothing.
Parameter names are the GGUF tensor names without ".weight".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    """Sizes of one model; every row length is a multiple of 64."""

    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    ffn_dim: int
    vocab_size: int = 1024
    context_length: int = 512
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


CONFIGS = {
    "stories": Config(dim=128, num_layers=6, num_heads=4, num_kv_heads=2, ffn_dim=384),
    "stories-draft": Config(dim=64, num_layers=2, num_heads=2, num_kv_heads=1, ffn_dim=256),
}


class Norm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        kv_dim = config.num_kv_heads * config.head_dim
        self.config = config
        self.attn_norm = Norm(config.dim, config.norm_eps)
        self.attn_q = nn.Linear(config.dim, config.dim, bias=False)
        self.attn_k = nn.Linear(config.dim, kv_dim, bias=False)
        self.attn_v = nn.Linear(config.dim, kv_dim, bias=False)
        self.attn_output = nn.Linear(config.dim, config.dim, bias=False)
        self.ffn_norm = Norm(config.dim, config.norm_eps)
        self.ffn_gate = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.ffn_up = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.ffn_down = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        config = self.config
        batch, length, dim = x.shape
        h = self.attn_norm(x)
        q = self.attn_q(h).view(batch, length, config.num_heads, config.head_dim)
        k = self.attn_k(h).view(batch, length, config.num_kv_heads, config.head_dim)
        v = self.attn_v(h).view(batch, length, config.num_kv_heads, config.head_dim)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        group = config.num_heads // config.num_kv_heads
        k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
        q, k, v = (t.transpose(1, 2).to(v.dtype) for t in (q, k, v))
        o = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_output(o.transpose(1, 2).reshape(batch, length, dim))
        h = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Llama(nn.Module):
    """tokens [batch, length] -> logits [batch, length, vocab_size]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab_size, config.dim)
        self.blk = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.output_norm = Norm(config.dim, config.norm_eps)
        frequencies = config.rope_base ** (
            -torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
        )
        angles = torch.arange(config.context_length, dtype=torch.float64)[:, None] * frequencies
        self.register_buffer("cos", angles.cos().float()[:, None, :], persistent=False)
        self.register_buffer("sin", angles.sin().float()[:, None, :], persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                depth = (
                    (2 * config.num_layers) ** -0.5
                    if name.endswith(("attn_output.weight", "ffn_down.weight"))
                    else 1.0
                )
                std = 0.02 if name.startswith("token_embd") else depth * parameter.shape[1] ** -0.5
                nn.init.normal_(parameter, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token_embd(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin)
        return functional.linear(self.output_norm(x), self.token_embd.weight)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (2i, 2i+1) of x [batch, length, heads, head_dim] by their position's angle."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
