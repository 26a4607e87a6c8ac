"""The plan: what a model computes, recorded once as a flat list of ops over numbered values.

A model file calls the methods of `Plan` in the order of the paper. Nothing is computed here. A backend's
`compile` reads `plan.ops` and builds an executor; every capability of the engine is either a rewrite of
this list or a choice of batch. A value is a matrix `(rows, width)` of real numbers; `rows` is symbolic:
``"tokens"`` (all tokens of the step) or ``"outputs"`` (those whose logits are wanted).

Over the line budget: the whole language of plans in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

from torchless.errors import UnsupportedError

__all__ = [
    "Add",
    "Attention",
    "CausalConv",
    "Columns",
    "Embed",
    "Experts",
    "GateRows",
    "GatedDelta",
    "Glu",
    "HeadsLinear",
    "LayerNorm",
    "Linear",
    "Map",
    "Op",
    "Piece",
    "Plan",
    "RmsNorm",
    "Rope",
    "RopeSpec",
    "Routing",
    "SelectOutputs",
    "Value",
]

Rows = Literal["tokens", "outputs"]
Activation = Literal["silu", "gelu_tanh", "gelu", "swiglu_clamped", "sigmoid"]
MapFunction = Literal["scale", "soft_cap", "silu", "gelu", "gelu_tanh", "relu", "relu_squared"]
Scoring = Literal["softmax", "softmax_chosen", "sigmoid", "sparse_mixer"]
Index = Literal["token", "position", "type"]
OutputKind = Literal["logits", "states", "scores"]


@dataclass(frozen=True, slots=True)
class Value:
    """A numbered intermediate result of shape (rows, width)."""

    id: int
    rows: Rows
    width: int

    def __str__(self) -> str:
        return f"%{self.id}"


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding: which pairs turn, and how fast.

    Pair j of a head turns by angle ``position * inv_freq[j]``; both rotated components are multiplied by
    `magnitude` (YaRN's attention factor; 1.0 otherwise). Built by `torchless.blocks.rope_spec`, which
    folds every kind of scaling (none, linear, llama3, yarn, frequency factors) into the numbers, so a
    backend needs to know only this formula.

    Attributes:
        layout: ``"interleaved"`` rotates elements (2j, 2j+1) (GGUF's llama family); ``"half"`` rotates
            (j, j + rotated/2) (Hugging Face and most others).
        inv_freq: radians per position for each pair; ``len(inv_freq) * 2`` leading elements of a head
            are rotated and the rest is copied.
        magnitude: factor on the rotated components.
        temperature: (beta, interval): a further factor on them, ``1 + beta * ln(1 + floor(position / interval))``.
            Of queries: scores grow with the position (Ministral 3).
    """

    layout: Literal["interleaved", "half"]
    inv_freq: tuple[float, ...]
    magnitude: float = 1.0
    temperature: tuple[float, int] | None = None


@dataclass(frozen=True, slots=True)
class Embed:
    """out[i] = table[first + index[i]] * scale. Weight shape (rows, width).

    `index` is the token's id, its position in the sequence (learned positions), or its type: which of two texts it is
    in (BERT). A batch says the type with the id: ``type * plan.num_token_ids + id``.
    """

    out: Value
    weight: str
    scale: float = 1.0
    index: Index = "token"
    first: int = 0


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """out = x / sqrt(mean(x^2) + eps) * weight. Weight shape (width,), None = all ones. Zhang & Sennrich 2019.

    Each of `num_heads` equal parts of x is normalised by itself, all with the same weight.
    """

    out: Value
    x: Value
    weight: str | None
    eps: float
    num_heads: int = 1


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """out = (x - mean(x)) / sqrt(variance(x) + eps) * weight (+ bias). Both of shape (width,). Ba et al. 2016.

    The variance is the mean of the squared deviations: divided by the width, not by one less.
    """

    out: Value
    x: Value
    weight: str
    bias: str | None
    eps: float


@dataclass(frozen=True, slots=True)
class Linear:
    """out = x @ weight.T (+ bias). Weight shape (out width, in width): rows are outputs.

    `rows` is (first, end) of the rows of weight and bias that this product takes, where a file holds several matrices
    in one tensor; None takes all.
    """

    out: Value
    x: Value
    weight: str
    bias: str | None = None
    rows: tuple[int, int] | None = None

    @property
    def matrix(self) -> str:
        """A name of the rows that are multiplied: the weight's own where it is all of them."""
        return self.weight + self._range

    @property
    def bias_vector(self) -> str | None:
        """The same of the bias."""
        return None if self.bias is None else self.bias + self._range

    @property
    def _range(self) -> str:
        return "" if self.rows is None else f"[{self.rows[0]}:{self.rows[1]}]"


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotates each head of x by its token's position. x is (tokens, num_heads * head_dim)."""

    out: Value
    x: Value
    num_heads: int
    head_dim: int
    spec: RopeSpec


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention of q against the sequence's cached and new keys and values.

    Stores this step's k and v in the cache of `layer` first; without them it reads what the attention that owns that
    cache stored, earlier in the plan (layers that share a cache). Query head h reads key/value head
    ``h // (num_heads // num_kv_heads)``. Scores are ``q.k * scale``; a token at position p sees
    positions ``max(0, p - window + 1) .. p`` (all when window is None).

    Attributes:
        softcap: scores become ``softcap * tanh(score / softcap)``. Gemma 2.
        slopes: one per query head; ``slope * (key position - query position)`` is added to the (capped)
            score. ALiBi: Press et al. 2021.
        sinks: a weight of shape (num_heads,): a score per head that takes part in the softmax, beside the
            keys', and has no value. gpt-oss.
        causal: False lets every token see all of its sequence, the tokens behind it too. A sequence is then computed
            whole, in one step: executors refuse a run that does not begin at position 0.
    """

    out: Value
    q: Value
    k: Value | None
    v: Value | None
    layer: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    slopes: tuple[float, ...] | None = None
    sinks: str | None = None
    causal: bool = True


@dataclass(frozen=True, slots=True)
class Glu:
    """out = activation(gate) * up, elementwise; `up` may be columns of a wider value. Shazeer 2020.

    ``"sigmoid"`` gates the output of attention (Qwen3-Next); ``"swiglu_clamped"`` (gpt-oss) is
    ``g * sigmoid(1.702 g) * (u + 1)`` with g = min(gate, 7), u = up within -7 .. 7.
    """

    out: Value
    gate: Value
    up: Value | Piece
    activation: Activation


@dataclass(frozen=True, slots=True)
class Map:
    """out = function(x), elementwise: ``parameter * x``, ``parameter * tanh(x / parameter)``, or an activation."""

    out: Value
    x: Value
    function: MapFunction
    parameter: float = 0.0


@dataclass(frozen=True, slots=True)
class Routing:
    """How a token chooses its experts and what each counts, from one logit for each expert.

    The `num_used` experts of the largest scores are chosen (of equal ones the lower number). A group of experts counts
    as much as its `group_best` largest scores together; where there are groups, only the experts of the
    `num_used_groups` best may be chosen (DeepSeek).

    Attributes:
        scoring: ``"softmax"`` over all experts; ``"sigmoid"`` of each logit; ``"softmax_chosen"`` chooses by the logits
            and takes the softmax of the chosen ones.
            ``"sparse_mixer"`` (Phi-3.5-MoE) chooses by the logits; a chosen expert weighs its softmax among those that
            are not chosen before it and whose logit l is close to its own, m: ``(m - l) / max(|l|, m) <= 0.02``.
        normalised: whether weights are divided by their sum.
        scale: factor on the weights, after that.
    """

    num_experts: int
    num_used: int
    scoring: Scoring
    normalised: bool = False
    scale: float = 1.0
    num_groups: int = 1
    num_used_groups: int = 1
    group_best: int = 1


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: the sum of weight * expert(x) over the experts that a token chooses. Shazeer et al. 2017.

    ``expert(x) = down(activation(gate(x)) * up(x))``. Weights are stacks of matrices (experts, out, in), biases
    (experts, out).

    Attributes:
        logits: the router's, (rows, experts).
        up_weight: None when `gate_weight` (and `gate_bias`) hold the rows of gate and, behind them, those of up.
        selection_bias: (experts,), added to the scores that choose experts, not to those that weigh them. DeepSeek V3.
        expert_scale: (experts,), factors on the weights of the experts that a token chose, after those of `routing`.
            Gemma 4.
    """

    out: Value
    x: Value
    logits: Value
    routing: Routing
    activation: Activation
    gate_weight: str
    up_weight: str | None
    down_weight: str
    gate_bias: str | None = None
    up_bias: str | None = None
    down_bias: str | None = None
    selection_bias: str | None = None
    expert_scale: str | None = None


@dataclass(frozen=True, slots=True)
class GateRows:
    """out[i] = x[i] * sigmoid(gate[i]), where gate is one number for each row."""

    out: Value
    x: Value
    gate: Value


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """out[i] = base[i] + sum over j of coefficients[i, first + j] * terms[j][i]. AltUp (Baykal et al. 2023)."""

    out: Value
    base: Value
    terms: tuple[Value, ...]
    coefficients: Value
    first: int


@dataclass(frozen=True, slots=True)
class MatchMagnitude:
    """out[i] = x[i] * sqrt(mean(like[i]^2) / max(mean(x[i]^2), floor))."""

    out: Value
    x: Value
    like: Value
    floor: float


@dataclass(frozen=True, slots=True)
class KeepAbove:
    """out[i] = max(x[i] - (mean + deviations * std), 0), mean and standard deviation those of the row x[i]."""

    out: Value
    x: Value
    deviations: float


@dataclass(frozen=True, slots=True)
class ScaleColumns:
    """out[i, j] = x[i, j] * weight[j]."""

    out: Value
    x: Value
    weight: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Columns of a value: `width` from ``start + i * stride`` on, where i counts the repetitions of `Columns`."""

    x: Value
    start: int
    width: int
    stride: int = 0

    def __str__(self) -> str:
        return f"{self.x}[{self.start}+{self.stride}i:{self.width}]"


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of values side by side: all pieces, then all of them again with i = 1, and so on, `count` times."""

    out: Value
    pieces: tuple[Piece, ...]
    count: int


@dataclass(frozen=True, slots=True)
class CausalConv:
    """out[t] = silu(the sum over j of weight[:, j] * x[t - taps + 1 + j]), channel by channel.

    Weight shape (width, taps). Rows of x before the sequence's first are zero; the last taps - 1 are its state.

    Attributes:
        state: number of this op's state among those of the plan.
    """

    out: Value
    x: Value
    weight: str
    state: int


@dataclass(frozen=True, slots=True)
class GatedDelta:
    """The gated delta rule: each head's matrix S forgets and is corrected, token by token. Yang et al. 2024.

    For each token, value head h and the key head g that serves it, with ``|a| = sqrt(sum of a^2 + 1e-6)``::

        q, k = q[g] / |q[g]| / sqrt(key_dim), k[g] / |k[g]|
        S = exp(decay[h] * softplus(step[h] + step_bias[h])) * S
        S = S + k (sigmoid(beta[h]) * (v[h] - k S))
        out[h] = q S

    S is (key_dim, value_dim), zero before the sequence, and its state.

    Attributes:
        x: (tokens, 2 * num_key_heads * key_dim + num_heads * value_dim): all queries, all keys, all values.
        step, beta: columns with one number for each value head; as a `Piece` is repeated in `Columns`.
        decay, step_bias: weights of the shape (num_heads,).
        is_tiled: whether key head ``h % num_key_heads`` serves value head h, rather than
            ``h // (num_heads // num_key_heads)``.
        state: number of this op's state among those of the plan.
    """

    out: Value
    x: Value
    step: Piece
    beta: Piece
    decay: str
    step_bias: str
    num_key_heads: int
    num_heads: int
    key_dim: int
    value_dim: int
    is_tiled: bool
    state: int


@dataclass(frozen=True, slots=True)
class HeadsLinear:
    """Each head of x times a matrix of its own. Weight shape (heads, out, in); x is (rows, heads * in)."""

    out: Value
    x: Value
    head_weights: str


@dataclass(frozen=True, slots=True)
class Add:
    """out = a + b, elementwise."""

    out: Value
    a: Value
    b: Value


@dataclass(frozen=True, slots=True)
class SelectOutputs:
    """Keeps the rows whose logits the batch asks for: (tokens, width) -> (outputs, width)."""

    out: Value
    x: Value


Op = (
    Embed
    | RmsNorm
    | LayerNorm
    | Linear
    | HeadsLinear
    | Columns
    | Rope
    | Attention
    | Glu
    | Map
    | Experts
    | GateRows
    | WeightedSum
    | MatchMagnitude
    | KeepAbove
    | ScaleColumns
    | CausalConv
    | GatedDelta
    | Add
    | SelectOutputs
)


# Attributes of ops that name a weight.
_WEIGHTS = (
    *("weight", "head_weights", "bias", "sinks", "gate_weight", "up_weight", "down_weight"),
    *("gate_bias", "up_bias", "down_bias", "selection_bias", "expert_scale", "decay", "step_bias"),
)

# What a listing does not say of ops that are as most are.
_USUAL = {"index": "token", "first": 0, "causal": True}


@dataclass(slots=True)
class Plan:
    """A model's forward pass. Filled by `models/<family>.py`, read by backends.

    Attributes:
        shapes: shape of every weight the source offers, rows first; ops are checked against it.
        ops: the recorded ops, in execution order (written by the methods below only).
        output: the value that a step returns, set by `set_output`.
        output_kind: what it is: ``"logits"`` of the next token, ``"states"`` (final hidden states, which become an
            embedding once pooled), or ``"scores"`` of a classifier.
    """

    shapes: dict[str, tuple[int, ...]]
    ops: list[Op] = field(default_factory=list)
    output: Value | None = None
    output_kind: OutputKind = "logits"
    _num_values: int = 0

    # -- ops, one method each ---------------------------------------------------------------------

    def embed(self, weight: str, *, scale: float = 1.0, index: Index = "token", first: int = 0) -> Value:
        """Rows of `weight` (rows, width) from `first` on, by each token's `index`: (tokens, width)."""
        rows, width = self._weight(weight, 2)
        self._require(0 <= first < rows, f"{weight} has {rows} rows and is read from row {first} on")
        return self._record(Embed(self._value("tokens", width), weight, scale, index, first))

    def rms_norm(self, x: Value, weight: str | None, *, eps: float, num_heads: int = 1) -> Value:
        """Root-mean-square norm over the width of x, or of each head; `weight` has that width, None is all ones."""
        self._require(x.width % num_heads == 0, f"{num_heads} heads in a width of {x.width}")
        if weight is not None:
            (width,) = self._weight(weight, 1)
            self._require(
                width * num_heads == x.width,
                f"norm weight {weight} has {width} elements, its input {x.width // num_heads}",
            )
        return self._record(RmsNorm(self._value(x.rows, x.width), x, weight, eps, num_heads))

    def layer_norm(self, x: Value, weight: str, *, bias: str | None = None, eps: float) -> Value:
        """Norm of the deviations from the mean over the width of x; `weight` and `bias` have that width."""
        for name in (weight, bias):
            if name is not None:
                (width,) = self._weight(name, 1)
                self._require(width == x.width, f"{name} has {width} elements, the norm's input {x.width}")
        return self._record(LayerNorm(self._value(x.rows, x.width), x, weight, bias, eps))

    def linear(
        self, x: Value, weight: str, *, bias: str | None = None, rows: tuple[int, int] | None = None
    ) -> Value:
        """x (rows, in) times `weight` (out, in) -> (rows, out), plus `bias` (out,) when given.

        A weight of the shape (in,) is one row. `rows` takes some of its rows, and those of the bias.
        """
        one_row = len(self.shapes.get(weight, ())) == 1
        num_out, num_in = (1, *self._weight(weight, 1)) if one_row else self._weight(weight, 2)
        self._require(num_in == x.width, f"{weight} takes {num_in} inputs but gets {x.width}")
        if bias is not None:
            (num_bias,) = self._weight(bias, 1)
            self._require(num_bias == num_out, f"{bias} has {num_bias} elements, {weight} has {num_out} rows")
        if rows is not None:
            first, end = rows
            self._require(
                0 <= first < end <= num_out, f"rows {first} to {end} of {weight}, which has {num_out}"
            )
            num_out = end - first
        return self._record(Linear(self._value(x.rows, num_out), x, weight, bias, rows))

    def rope(self, x: Value, *, num_heads: int, head_dim: int, spec: RopeSpec) -> Value:
        """Rotates x (tokens, num_heads * head_dim) by each token's position."""
        self._require(
            x.width == num_heads * head_dim, f"rope over {num_heads} heads of {head_dim}, got {x.width}"
        )
        self._require(2 * len(spec.inv_freq) <= head_dim, "rope turns more elements than a head has")
        return self._record(Rope(self._value(x.rows, x.width), x, num_heads, head_dim, spec))

    def attention(
        self,
        q: Value,
        k: Value | None,
        v: Value | None,
        *,
        layer: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        slopes: tuple[float, ...] | None = None,
        sinks: str | None = None,
        causal: bool = True,
    ) -> Value:
        """Grouped-query attention; see `Attention`. Returns (tokens, num_heads * head_dim)."""
        self._require(num_heads % num_kv_heads == 0, f"{num_heads} heads over {num_kv_heads} key/value heads")
        self._require(
            q.width == num_heads * head_dim, f"queries are {q.width} wide, not {num_heads * head_dim}"
        )
        owner = next((op for op in self.cache_ops if op.layer == layer), None)
        if k is None or v is None:
            self._require(
                k is v
                and owner is not None
                and (owner.num_kv_heads, owner.head_dim) == (num_kv_heads, head_dim),
                f"no cache of layer {layer} with {num_kv_heads} key/value heads of {head_dim} to share",
            )
        else:
            self._require(owner is None, f"layer {layer} stores keys and values twice")
            expected = num_kv_heads * head_dim
            for name, value in (("keys", k), ("values", v)):
                self._require(value.width == expected, f"{name} are {value.width} wide, not {expected}")
        self._require(softcap is None or softcap > 0, f"a soft cap of {softcap}")
        if slopes is not None:
            self._require(len(slopes) == num_heads, f"{len(slopes)} ALiBi slopes for {num_heads} heads")
        if sinks is not None:
            (num_sinks,) = self._weight(sinks, 1)
            self._require(num_sinks == num_heads, f"{sinks} has {num_sinks} elements for {num_heads} heads")
        self._require(
            causal or (window is None and slopes is None),
            "a window or ALiBi slopes where a token sees those behind it",
        )
        out = self._value("tokens", q.width)
        shape = (num_heads, num_kv_heads, head_dim, scale, window, softcap, slopes, sinks, causal)
        return self._record(Attention(out, q, k, v, layer, *shape))

    def glu(self, gate: Value, up: Value | Piece, *, activation: Activation) -> Value:
        """activation(gate) * up; both (rows, width). A piece has no repetitions: columns of a wider value."""
        self._require(gate.width == up.width, f"gate is {gate.width} wide, up {up.width}")
        if isinstance(up, Piece):
            self._require(
                up.start >= 0 and up.start + up.width <= up.x.width and up.x.rows == gate.rows,
                f"columns {up.start} to {up.start + up.width} of a value that is {up.x.width} wide",
            )
        return self._record(Glu(self._value(gate.rows, gate.width), gate, up, activation))

    def scale(self, x: Value, factor: float) -> Value:
        """factor * x; x itself where the factor is 1."""
        return x if factor == 1.0 else self._map(x, "scale", factor)

    def soft_cap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap): x, softly held within -cap .. cap. Gemma 2."""
        self._require(cap > 0, f"a soft cap of {cap}")
        return self._map(x, "soft_cap", cap)

    def activate(
        self, x: Value, activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]
    ) -> Value:
        """activation(x): that of an MLP without a gate."""
        return self._map(x, activation)

    def _map(self, x: Value, function: MapFunction, parameter: float = 0.0) -> Value:
        return self._record(Map(self._value(x.rows, x.width), x, function, parameter))

    def experts(
        self,
        x: Value,
        logits: Value,
        routing: Routing,
        *,
        activation: Activation,
        gate: str,
        up: str | None,
        down: str,
        gate_bias: str | None = None,
        up_bias: str | None = None,
        down_bias: str | None = None,
        selection_bias: str | None = None,
        expert_scale: str | None = None,
    ) -> Value:
        """A mixture of experts; see `Experts`. x (tokens, width), logits (tokens, experts) -> (tokens, width)."""
        self._check_routing(routing, logits)
        self._require(x.rows == logits.rows == "tokens", "experts need a row for each token")
        num_experts, num_out, width = self._weight(down, 3)
        inner = 2 * width if up is None else width
        up_shape = (num_experts, width, x.width)
        expected: list[tuple[str | None, tuple[int, ...]]] = [
            (gate, (num_experts, inner, x.width)),
            (up, up_shape),
            (gate_bias, (num_experts, inner)),
            (up_bias, up_shape[:2]),
            (down_bias, (num_experts, num_out)),
            (selection_bias, (num_experts,)),
            (expert_scale, (num_experts,)),
        ]
        for name, shape in expected:
            if name is not None:
                found = self._weight(name, len(shape))
                self._require(found == shape, f"{name} has the shape {found}, expected {shape}")
        names = (gate, up, down, gate_bias, up_bias, down_bias, selection_bias, expert_scale)
        return self._record(Experts(self._value("tokens", num_out), x, logits, routing, activation, *names))

    def columns(self, pieces: Sequence[Piece], *, count: int = 1) -> Value:
        """Columns of values side by side; see `Columns`."""
        for piece in pieces:
            end = piece.start + (count - 1) * piece.stride + piece.width
            self._require(
                piece.width > 0 and piece.start >= 0 and piece.stride >= 0 and end <= piece.x.width,
                f"columns up to {end} of a value that is {piece.x.width} wide",
            )
            self._require(piece.x.rows == pieces[0].x.rows, "columns of values with other rows")
        width = count * sum(piece.width for piece in pieces)
        return self._record(Columns(self._value(pieces[0].x.rows, width), tuple(pieces), count))

    def heads_linear(self, x: Value, weight: str) -> Value:
        """x (rows, heads * in) times `weight` (heads, out, in), head by head -> (rows, heads * out)."""
        heads, num_out, num_in = self._weight(weight, 3)
        self._require(x.width == heads * num_in, f"{weight} takes {heads} x {num_in} inputs, gets {x.width}")
        return self._record(HeadsLinear(self._value(x.rows, heads * num_out), x, weight))

    def gate_rows(self, x: Value, gate: Value) -> Value:
        """x (rows, width) times the sigmoid of gate (rows, 1)."""
        self._require(gate.width == 1 and gate.rows == x.rows, f"a gate of width {gate.width} for rows")
        return self._record(GateRows(self._value(x.rows, x.width), x, gate))

    def weighted_sum(
        self, base: Value, terms: Sequence[Value], coefficients: Value, *, first: int = 0
    ) -> Value:
        """base plus terms by each row's own coefficients, those from column `first` on; see `WeightedSum`."""
        for value in (*terms, coefficients):
            self._require(value.rows == base.rows, "a sum of values with other rows")
        self._require(
            all(term.width == base.width for term in terms) and 0 <= first <= coefficients.width - len(terms),
            f"{len(terms)} terms of width {base.width} by coefficients from {first} on of {coefficients.width}",
        )
        value = self._value(base.rows, base.width)
        return self._record(WeightedSum(value, base, tuple(terms), coefficients, first))

    def match_magnitude(self, x: Value, like: Value, *, floor: float) -> Value:
        """x, each row as large as that of `like`; see `MatchMagnitude`."""
        self._require(x.rows == like.rows and floor > 0, "magnitudes of other rows")
        return self._record(MatchMagnitude(self._value(x.rows, x.width), x, like, floor))

    def keep_above(self, x: Value, *, deviations: float) -> Value:
        """What of each row lies above its mean by so many standard deviations; see `KeepAbove`."""
        return self._record(KeepAbove(self._value(x.rows, x.width), x, deviations))

    def scale_columns(self, x: Value, weight: str) -> Value:
        """x times the vector `weight`, element by element."""
        (width,) = self._weight(weight, 1)
        self._require(width == x.width, f"{weight} has {width} elements for a value that is {x.width} wide")
        return self._record(ScaleColumns(self._value(x.rows, x.width), x, weight))

    def causal_conv(self, x: Value, weight: str) -> Value:
        """Convolution over the last tokens of a sequence, then SiLU; see `CausalConv`."""
        width, taps = self._weight(weight, 2)
        self._require(width == x.width, f"{weight} has {width} channels, its input {x.width}")
        self._require(2 <= taps <= 16, f"{weight} looks at {taps} tokens; torchless computes 2 to 16")
        self._require(x.rows == "tokens", "a convolution needs a row for each token")
        return self._record(CausalConv(self._value("tokens", width), x, weight, len(self.state_ops)))

    def gated_delta(
        self,
        x: Value,
        *,
        step: Piece,
        beta: Piece,
        decay: str,
        step_bias: str,
        num_key_heads: int,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        is_tiled: bool,
    ) -> Value:
        """The gated delta rule; see `GatedDelta`. Returns (tokens, num_heads * value_dim)."""
        self._require(
            num_heads % num_key_heads == 0, f"{num_heads} value heads over {num_key_heads} key heads"
        )
        expected = 2 * num_key_heads * key_dim + num_heads * value_dim
        self._require(x.width == expected and x.rows == "tokens", f"heads are {x.width} wide, not {expected}")
        for piece in (step, beta):
            repeats = max(num_heads // piece.width, 1)
            end = piece.start + (repeats - 1) * piece.stride + piece.width
            self._require(
                num_heads % piece.width == 0 and end <= piece.x.width and piece.x.rows == "tokens",
                f"columns up to {end} of a value that is {piece.x.width} wide, for {num_heads} heads",
            )
        for name in (decay, step_bias):
            (found,) = self._weight(name, 1)
            self._require(found == num_heads, f"{name} has {found} elements for {num_heads} heads")
        out = self._value("tokens", num_heads * value_dim)
        sizes = (num_key_heads, num_heads, key_dim, value_dim, is_tiled, len(self.state_ops))
        return self._record(GatedDelta(out, x, step, beta, decay, step_bias, *sizes))

    def add(self, a: Value, b: Value) -> Value:
        """a + b, same shape."""
        self._require(a.width == b.width and a.rows == b.rows, f"cannot add widths {a.width} and {b.width}")
        return self._record(Add(self._value(a.rows, a.width), a, b))

    def select_outputs(self, x: Value) -> Value:
        """Rows whose logits the batch wants."""
        return self._record(SelectOutputs(self._value("outputs", x.width), x))

    def set_output(self, value: Value, kind: OutputKind = "logits") -> None:
        """Declares the value that a step returns, (outputs, width), and what it is."""
        self.output, self.output_kind = value, kind

    # -- reading ----------------------------------------------------------------------------------

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Names of all weights used, in first-use order."""
        names: dict[str, None] = {}
        for op in self.ops:
            for attribute in _WEIGHTS:
                name = getattr(op, attribute, None)
                if name is not None:
                    names[name] = None
        return tuple(names)

    @property
    def attention_ops(self) -> tuple[Attention, ...]:
        """The attention ops in layer order."""
        return tuple(op for op in self.ops if isinstance(op, Attention))

    @property
    def cache_ops(self) -> tuple[Attention, ...]:
        """Those that store keys and values: what the KV cache must hold."""
        return tuple(op for op in self.attention_ops if op.k is not None)

    @property
    def needs_whole_sequences(self) -> bool:
        """Whether a sequence must be computed in one step, because its tokens see those behind them."""
        return any(not op.causal for op in self.attention_ops)

    @property
    def num_token_ids(self) -> int:
        """Token ids that may be asked for: rows of the embedding table."""
        tables = [op for op in self.ops if isinstance(op, Embed) and op.index == "token"]
        return min((self.shapes[op.weight][0] - op.first for op in tables), default=2**31 - 1)

    @property
    def num_types(self) -> int:
        """Types that a token can have."""
        tables = [op for op in self.ops if isinstance(op, Embed) and op.index == "type"]
        return min((self.shapes[op.weight][0] - op.first for op in tables), default=1)

    @property
    def num_positions(self) -> int | None:
        """Positions that learned embeddings have rows for; None without such embeddings."""
        tables = [op for op in self.ops if isinstance(op, Embed) and op.index == "position"]
        return min((self.shapes[op.weight][0] - op.first for op in tables), default=None)

    @property
    def state_ops(self) -> tuple[CausalConv | GatedDelta, ...]:
        """The ops that keep recurrent state, by the number of their state: what a state slot must hold."""
        return tuple(op for op in self.ops if isinstance(op, CausalConv | GatedDelta))

    def __str__(self) -> str:
        """A readable listing, one op a line: ``%3 (tokens, 192) = linear %2, blk.0.attn_q.weight``."""
        return "\n".join(self._line(op) for op in self.ops)

    # -- internals --------------------------------------------------------------------------------

    def _line(self, op: Op) -> str:
        details = []
        for item in fields(op):
            value = getattr(op, item.name)
            if item.name == "out" or value is None or _USUAL.get(item.name, ...) == value:
                continue
            if item.name in ("pieces", "terms"):
                details.append(" ".join(map(str, value)))
            elif isinstance(value, Value | Piece | str):
                details.append(str(value))
            elif isinstance(value, Routing):
                details.append(f"{value.num_used} of {value.num_experts} by {value.scoring}")
            elif isinstance(value, RopeSpec):
                details.append(f"{value.layout} pairs={len(value.inv_freq)} magnitude={value.magnitude:g}")
                if value.temperature is not None:
                    details.append("temperature={:g}/{}".format(*value.temperature))
            else:
                details.append(
                    f"{item.name}={value:g}" if isinstance(value, float) else f"{item.name}={value}"
                )
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(op).__name__).lstrip("_")
        return f"{op.out} ({op.out.rows}, {op.out.width}) = {name} {', '.join(details)}"

    def _value(self, rows: Rows, width: int) -> Value:
        self._num_values += 1
        return Value(self._num_values - 1, rows, width)

    def _record(self, op: Op) -> Value:
        self.ops.append(op)
        return op.out

    def _weight(self, name: str, num_dims: int) -> tuple[int, ...]:
        shape = self.shapes.get(name)
        if shape is None:
            raise UnsupportedError(
                f"the model has no tensor {name!r}, which its architecture needs; the file is incomplete "
                f"or a variant that torchless does not know"
            )
        self._require(
            len(shape) == num_dims, f"tensor {name} has shape {shape}, expected {num_dims} dimensions"
        )
        return shape

    def _check_routing(self, routing: Routing, logits: Value) -> None:
        count, groups = routing.num_experts, routing.num_groups
        self._require(logits.width == count, f"{logits.width} router logits for {count} experts")
        self._require(1 <= routing.num_used <= min(count, 64), f"{routing.num_used} of {count} experts used")
        self._require(groups >= 1 and count % groups == 0, f"{count} experts in {groups} groups")
        used = routing.num_used_groups
        self._require(
            1 <= used <= groups
            and used * (count // groups) >= routing.num_used
            and 1 <= routing.group_best <= min(2, count // groups),
            f"{routing.num_used} experts of {used} of {groups} groups of {count // groups}",
        )

    @staticmethod
    def _require(condition: bool, message: str) -> None:
        if not condition:
            raise UnsupportedError(f"the model's shapes do not fit together: {message}")
