"""One function per op of the plan, in float64: the definition that every other backend is compared with.

A value is an array (rows, width). Shapes are in each docstring; `n` is the number of token rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from torchless.plan import Activation, MapFunction, RopeSpec, Routing

__all__ = [
    "Array",
    "attend",
    "causal_conv",
    "choose_experts",
    "embed",
    "gated_delta",
    "glu",
    "heads_linear",
    "layer_norm",
    "linear",
    "map_values",
    "rms_norm",
    "rope",
    "sigmoid",
]

Array = npt.NDArray[np.float64]


def embed(table: Array, index: npt.NDArray[np.int32], scale: float) -> Array:
    """table (rows, width), index (n,) -> (n, width): rows of the table, times scale."""
    rows: Array = table[index] * scale
    return rows


def rms_norm(x: Array, weight: Array | None, eps: float, num_heads: int = 1) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight, row by row and head by head."""
    heads = x.reshape(len(x), num_heads, x.shape[-1] // num_heads)
    normed: Array = heads / np.sqrt(np.mean(heads * heads, axis=-1, keepdims=True) + eps)
    result: Array = (normed if weight is None else normed * weight).reshape(x.shape)
    return result


def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight (+ bias), row by row."""
    centred = x - x.mean(axis=-1, keepdims=True)
    normed: Array = centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps) * weight
    return normed if bias is None else normed + bias


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """x (n, in), weight (out, in), or (in,) for one output -> (n, out)."""
    product: Array = x @ np.atleast_2d(weight).T
    return product if bias is None else product + bias


def heads_linear(x: Array, weights: Array) -> Array:
    """x (n, heads * in), weights (heads, out, in) -> (n, heads * out)."""
    heads, num_out, num_in = weights.shape
    product = np.einsum("nhi,hoi->nho", x.reshape(len(x), heads, num_in), weights, optimize=True)
    result: Array = product.reshape(len(x), heads * num_out)
    return result


def rope(x: Array, positions: npt.NDArray[np.int32], num_heads: int, head_dim: int, spec: RopeSpec) -> Array:
    """Turns pair j of every head by positions * inv_freq[j]; elements beyond the pairs stay.

    (a, b) -> (a cos - b sin, a sin + b cos) * magnitude, where the pair is (2j, 2j + 1) or (j, j + pairs). With a
    temperature (beta, interval) the magnitude grows by 1 + beta * ln(1 + floor(position / interval)).
    """
    heads = x.reshape(len(x), num_heads, head_dim).copy()
    pairs = len(spec.inv_freq)
    angles = positions[:, None].astype(np.float64) * np.asarray(spec.inv_freq)
    beta, interval = spec.temperature or (0.0, 1)
    magnitude = spec.magnitude * (1 + beta * np.log1p(positions // interval))[:, None]
    cos, sin = (np.cos(angles) * magnitude)[:, None], (np.sin(angles) * magnitude)[:, None]
    first = slice(0, 2 * pairs, 2) if spec.layout == "interleaved" else slice(0, pairs)
    second = slice(1, 2 * pairs, 2) if spec.layout == "interleaved" else slice(pairs, 2 * pairs)
    a, b = heads[..., first].copy(), heads[..., second].copy()
    heads[..., first] = a * cos - b * sin
    heads[..., second] = a * sin + b * cos
    turned: Array = heads.reshape(x.shape)
    return turned


def attend(
    q: Array,
    k: Array,
    v: Array,
    first_position: int,
    scale: float,
    window: int | None,
    *,
    softcap: float | None = None,
    slopes: Sequence[float] | None = None,
    sinks: npt.NDArray[np.floating] | None = None,
    causal: bool = True,
) -> Array:
    """Attention of one sequence and all its heads.

    q (n, heads, d) at positions first_position .. + n - 1; k and v (length, kv_heads, d), positions 0 .. length - 1.
    A query at position p sees positions max(0, p - window + 1) .. p, or all if not causal. Returns (n, heads, d).
    """
    group = q.shape[1] // k.shape[1]
    keys, values = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("nhd,lhd->hnl", q, keys, optimize=True) * scale
    distance = (first_position + np.arange(len(q)))[:, None] - np.arange(len(k))[None, :]
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if slopes is not None:
        scores -= np.asarray(slopes, np.float64)[:, None, None] * distance
    visible = (distance >= 0) | (not causal)
    if window is not None:
        visible &= distance < window
    scores = np.where(visible, scores, -np.inf)
    if sinks is not None:  # one more key, whose value is zero
        sink = np.broadcast_to(np.asarray(sinks, np.float64)[:, None, None], (*scores.shape[:2], 1))
        scores = np.concatenate([scores, sink], axis=-1)
        values = np.concatenate([values, np.zeros_like(values[:1])])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: Array = np.einsum("hnl,lhd->nhd", weights, values, optimize=True)
    return mixed


def causal_conv(x: Array, history: Array, weight: Array) -> tuple[Array, Array]:
    """x (n, width) behind its history (taps - 1, width), weight (width, taps) -> (n, width) and the new history."""
    taps = weight.shape[1]
    rows = np.concatenate([history, x])
    mixed = sum(weight[:, j] * rows[j : j + len(x)] for j in range(taps))
    return mixed * sigmoid(np.asarray(mixed)), rows[len(x) :]


def gated_delta(q: Array, k: Array, v: Array, decay: Array, beta: Array, state: Array) -> tuple[Array, Array]:
    """The gated delta rule of one sequence; see `plan.GatedDelta`.

    q and k (n, heads, key_dim) as they come, v (n, heads, value_dim), decay and beta (n, heads) as factors, state
    (heads, key_dim, value_dim). Returns (n, heads, value_dim) and the state after the last token.
    """
    q, k = (x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6) for x in (q, k))
    q = q / math.sqrt(q.shape[-1])
    out = np.empty_like(v)
    for t in range(len(q)):
        state = state * decay[t][:, None, None]
        error = v[t] - np.einsum("hk,hkv->hv", k[t], state)
        state = state + k[t][:, :, None] * (beta[t][:, None] * error)[:, None, :]
        out[t] = np.einsum("hk,hkv->hv", q[t], state)
    return out, state


def map_values(x: Array, function: MapFunction, parameter: float) -> Array:
    """One function of every element; see `plan.Map`."""
    if function == "scale":
        return parameter * x
    if function == "soft_cap":
        capped: Array = parameter * np.tanh(x / parameter)
        return capped
    if function == "relu" or function == "relu_squared":
        positive = np.maximum(x, 0.0)
        return positive * positive if function == "relu_squared" else positive
    return _active(x, function)


def glu(gate: Array, up: Array, activation: Activation) -> Array:
    """activation(gate) * up."""
    if activation == "sigmoid":
        active = sigmoid(gate)
    elif activation == "swiglu_clamped":
        gate, up = np.minimum(gate, 7.0), np.clip(up, -7.0, 7.0) + 1.0
        active = gate * sigmoid(1.702 * gate)
    else:
        active = _active(gate, activation)
    result: Array = active * up
    return result


def _active(x: Array, activation: Literal["silu", "gelu_tanh", "gelu"]) -> Array:
    if activation == "silu":
        active: Array = x / (1.0 + np.exp(-x))
    elif activation == "gelu_tanh":
        active = 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    else:
        erf = np.vectorize(math.erf, otypes=[np.float64])
        active = 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))
    return active


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def choose_experts(
    logits: Array, routing: Routing, selection_bias: Array | None
) -> tuple[npt.NDArray[np.intp], Array]:
    """Logits (n, experts) -> experts (n, used), best first, and the weight of each."""
    if routing.scoring == "sigmoid":
        scores = sigmoid(logits)
    elif routing.scoring == "softmax":
        scores = _softmax(logits)
    else:
        scores = logits
    choice = scores if selection_bias is None else scores + selection_bias
    if routing.num_used_groups < routing.num_groups:
        groups = choice.reshape(len(choice), routing.num_groups, -1)
        worth = np.sort(groups, axis=-1)[..., -routing.group_best :].sum(axis=-1)
        closed = np.argsort(-worth, axis=-1, kind="stable")[:, routing.num_used_groups :]
        groups = groups.copy()
        np.put_along_axis(groups, closed[..., None], -np.inf, axis=1)
        choice = groups.reshape(choice.shape)
    experts = np.argsort(-choice, axis=-1, kind="stable")[:, : routing.num_used]
    weights = np.take_along_axis(scores, experts, axis=-1)
    if routing.scoring == "softmax_chosen":
        weights = _softmax(weights)
    elif routing.scoring == "sparse_mixer":
        weights = _sparse_shares(logits, experts)
    elif routing.normalised:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return experts, weights * routing.scale


def _sparse_shares(logits: Array, experts: npt.NDArray[np.intp]) -> Array:
    """What each chosen expert counts: its softmax among those not chosen before it whose logits come close."""
    shares: Array = np.empty(experts.shape)
    rest = np.zeros_like(logits)
    for i in range(experts.shape[1]):
        chosen = experts[:, i : i + 1]
        most = np.take_along_axis(logits, chosen, axis=-1)
        scale = np.maximum(np.abs(logits), most)
        is_close = (most - logits) <= 0.02 * scale
        shares[:, i] = 1.0 / np.sum(np.exp(logits - most) * is_close * (rest == 0), axis=-1)
        np.put_along_axis(rest, chosen, 1.0, axis=-1)
    return shares


def _softmax(x: Array) -> Array:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = weights / weights.sum(axis=-1, keepdims=True)
    return result


def match_magnitude(x: Array, like: Array, floor: float) -> Array:
    """x, each row with the root mean square of `like`'s; that of x counts as sqrt(floor) at least."""
    wanted, found = ((value * value).mean(1, keepdims=True) for value in (like, x))
    matched: Array = x * np.sqrt(wanted / np.maximum(found, floor))
    return matched


def weighted_sum(base: Array, terms: Sequence[Array], factors: Array) -> Array:
    """base plus each term by its own column of factors."""
    total: Array = base.copy()
    for j, term in enumerate(terms):
        total += factors[:, [j]] * term
    return total


def keep_above(x: Array, deviations: float) -> Array:
    """What of each row exceeds its mean by so many standard deviations, else 0."""
    bound = x.mean(1, keepdims=True) + deviations * x.std(1, keepdims=True)
    kept: Array = np.maximum(x - bound, 0.0)
    return kept
