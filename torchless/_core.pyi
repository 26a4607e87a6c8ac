"""The C++ core of torchless: kernels, weights, executor."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy
from numpy.typing import NDArray

kernels: Any

PAGE_TOKENS: int = 32

def isa() -> str:
    """
    Name of the instruction-set level in use: 'scalar', 'avx2', 'avxvnni', 'avx512' or 'amx'.

    TORCHLESS_ISA forces a level. Raises RuntimeError for one that this machine lacks.
    """

def isa_levels() -> list[str]:
    """Levels of this build that this machine can run, slowest first."""

def measure_read_bandwidth(num_threads: int, num_bytes: int) -> float:
    """
    Bytes per second that num_threads read from num_bytes of memory, best of several passes.
    """

def measure_dot_peak(kind: str, num_threads: int) -> float:
    """
    Operations per second of num_threads that multiply and add 'int8', 'bf16' or 'f32' in registers, two per
    multiply-add, best of several passes.
    """

def allocation_count() -> int:
    """Heap allocations made by this module's C++ code since it was loaded."""

def formats(activations: str = "int8") -> list[tuple[int, int, int, str]]:
    """
    Weight formats with kernels: (GGUF type id, block elements, block bytes, activation format).
    """

def fast_types() -> list[int]:
    """GGUF type ids of the weights that have products in fast mode."""

def packed_bytes(type: int, rows: int, columns: int) -> int:
    """Bytes of a weight matrix once packed."""

def thread_scratch_bytes(
    matrices: Sequence[tuple[int, int, bool]],
    k_type: str,
    v_type: str,
    attentions: Sequence[tuple[int, int, int]],
    activations: str,
    fast: bool,
) -> int:
    """
    Most scratch bytes that one thread needs for matrices (type, columns, is mapped) and attentions (key/value heads, head dimension, query heads to each).
    """

def file_window_bytes(type: int, columns: int, num_tiles: int) -> int:
    """
    Most bytes of a file that one thread has mapped at once for a product that takes so many tiles of a mapped matrix together.
    """

def experts_scratch_bytes(
    gate: tuple[int, int, bool],
    up: tuple[int, int, bool],
    down: tuple[int, int, bool],
    num_experts: int,
    num_used: int,
    max_tokens: int,
    activations: str,
) -> tuple[int, int]:
    """
    Scratch bytes of one thread, and of all together, for experts whose matrices are (type, columns, is mapped).
    """

def heads_scratch_bytes(type: int, columns: int, is_mapped: bool, activations: str) -> int:
    """Scratch bytes of one thread for a product by heads."""

def buffer_row_bytes(format: str, width: int) -> int:
    """Bytes of one row of activations in a format."""

def kv_page_bytes(k_type: str, v_type: str, layers: Sequence[tuple[int, int]]) -> int:
    """
    Bytes of one KV page; layers: (key/value heads, head dimension) of each.
    """

def attention_shared_bytes(num_heads: int, num_kv_heads: int, head_dim: int, num_pages: int) -> int:
    """Bytes that all threads share for the partial results of attention."""

class Executor:
    """
    A plan in the making, then ready to run: add weights, buffers and stages, call finish(), then step().
    """

    def __init__(
        self,
        num_threads: int,
        max_tokens: int,
        max_outputs: int,
        weight_bytes: int,
        activations: str,
        fast: bool,
        cpus: Sequence[int],
    ) -> None:
        """
        activations: int8, bf16 or f32, what products multiply at least; fast: steps may have fast rows; cpus: the processor that each thread keeps to, or none
        """

    def set_interrupted(self, is_interrupted: bool) -> None:
        """
        While set, a step is given up at its next stage. Any thread may call it, also during a step.
        """

    def set_kv_cache(
        self, k_type: str, v_type: str, layers: Sequence[tuple[int, int]], num_pages: int
    ) -> None:
        """layers: (key/value heads, head dimension) of each"""

    def add_matrix(self, type: int, rows: int, columns: int) -> int:
        """Makes room for a weight matrix; its rows follow by pack_rows."""

    def pack_rows(
        self,
        matrix: int,
        first_row: int,
        rows: int,
        raw: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu", writable=False)],
    ) -> None:
        """
        Packs rows from the file's bytes, which are not needed afterwards. first_row is a multiple of 16, and so is rows, but for the last ones.
        """

    def add_mapped_matrix(self, type: int, rows: int, columns: int, map: object, offset: int) -> int:
        """
        A matrix that stays where it is, `offset` bytes into a read-only map of a whole file, which is kept alive. Its tiles are packed as they are used, and the pages let go.
        """

    def try_tiles(self, matrix: int, begin: int, end: int) -> None:
        """
        Multiplies tiles of a mapped matrix with a row of zeros, to measure what reading them costs. After finish.
        """

    def add_vector(
        self,
        values: Annotated[
            NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
    ) -> int: ...
    def add_table(self, type: int, rows: int, columns: int, raw: object, is_forgotten: bool) -> int:
        """
        A table read row by row straight from `raw`, which is kept alive. is_forgotten: it is a read-only map of a file, whose pages are let go once they are read.
        """

    def add_buffer(
        self, offset: int, outputs: bool, format: str, width: int, copies: int = 1, spare: int = 0
    ) -> int:
        """copies: rows for each token or output; spare: further rows"""

    def add_rope(
        self,
        interleaved: bool,
        inv_freq: Sequence[float],
        magnitude: float,
        temperature: float,
        interval: int,
        cos: int,
        sin: int,
    ) -> int:
        """
        temperature: of Ministral 3's queries, 0 = none; interval: positions for which it is the same
        """

    def embed(
        self,
        table: int,
        out: int,
        scale: float,
        index: str = "token",
        first: int = 0,
        num_ids: int = 2147483647,
    ) -> None:
        """
        Rows first + (token id % num_ids, position, or type: token id / num_ids) of a table.
        """

    def convert(self, x: int, out: int, shared: bool) -> None:
        """shared: with few rows, the products that read `out` do this themselves"""

    def rms_norm(self, x: int, weight: int, eps: float, out: int, shared: bool) -> None:
        """shared: as for convert"""

    def layer_norm(self, x: int, weight: int, bias: int, eps: float, out: int, shared: bool) -> None:
        """bias: a vector or -1; shared: as for convert"""

    def matmul(self, x: int, parts: Sequence[tuple[int, int, int, bool]]) -> None:
        """parts: (matrix, bias vector or -1, out buffer, accumulate)"""

    def head(self, x: int, part: tuple[int, int, int, bool]) -> None:
        """The product that makes the logits; part as for matmul."""

    def rope_kv(
        self, parts: Sequence[tuple[int, int, int, int, int, int, float]], k: int, v: int, layer: int
    ) -> None:
        """
        parts: (buffer, buffer that is normalised into it, num_heads, head_dim, rope or -1, vector of a norm of heads or -1, its eps); k, v: -1 stores nothing
        """

    def attention(
        self,
        q: int,
        out: int,
        layer: int,
        num_heads: int,
        scale: float,
        window: int,
        softcap: float,
        slopes: Sequence[float],
        sinks: int,
        rope_kv: bool,
        causal: bool = True,
    ) -> None:
        """
        window, softcap: 0 = none; slopes: one per query head or none; sinks: a vector or -1; rope_kv: does the work of the rope_kv stage before it where it can
        """

    def map(self, x: int, out: int, function: str, parameter: float) -> None:
        """out = function(x), element by element"""

    def glu(self, gate: int, up: int, up_start: int, out: int, activation: str) -> None:
        """up_start: the first column of up that is taken"""

    def heads_norm(self, x: int, weight: int, num_heads: int, eps: float, out: int) -> None: ...
    def gated_matmul(
        self, x: int, gate: tuple[int, int], up: tuple[int, int], out: int, activation: str
    ) -> None:
        """gate, up: (matrix, bias vector or -1), with a multiple of 256 rows"""

    def route(
        self,
        logits: int,
        bias: int,
        expert_scale: int,
        width: int,
        routing: tuple[int, int, str, bool, float, int, int, int],
    ) -> None:
        """
        Chooses experts; bias, expert_scale: vectors or -1; width: of the experts' inner layer; routing: (experts, used, scoring, normalised, scale, groups, used groups, scores that a group counts by)
        """

    def experts_gated(
        self,
        x: int,
        up_x: int,
        gate: tuple[int, int],
        up: tuple[int, int],
        out: int,
        activation: str,
        num_experts: int,
    ) -> None:
        """
        gate, up: (matrix of the first expert, vector of all biases or -1); out: rows of (token, expert)
        """

    def experts_down(
        self,
        x: int,
        down: tuple[int, int],
        out: int,
        accumulate: bool,
        routing: tuple[int, int, str, bool, float, int, int, int],
    ) -> None:
        """
        The product of what experts_gated made, and the weighted sum of a token's experts.
        """

    def columns(self, pieces: Sequence[tuple[int, int, int, int]], count: int, out: int) -> None:
        """
        pieces: (buffer, first column, columns, distance to the next repetition)
        """

    def heads_matmul(self, x: int, heads: tuple[int, int], out: int) -> None:
        """heads: (matrix of the first head, number of heads)"""

    def gate_rows(self, x: int, gate: int, out: int) -> None:
        """Rows of x times the sigmoid of their one number in gate."""

    def weighted_sum(self, base: int, terms: Sequence[int], coefficients: int, first: int, out: int) -> None:
        """
        base plus terms by each row's coefficients, those from column `first` on
        """

    def match_magnitude(self, x: int, like: int, floor: float, out: int) -> None:
        """Rows of x as large as those of `like`."""

    def keep_above(self, x: int, deviations: float, out: int) -> None:
        """What of each row lies above its mean by so many standard deviations."""

    def scale_columns(self, x: int, weight: int, out: int) -> None:
        """Columns of x by the elements of a vector."""

    def add(self, a: int, b: int, out: int) -> None: ...
    def select(self, x: int, out: int) -> None: ...
    def finish(self, arena_bytes: int, logits: int, output_width: int, merge_inputs: bool) -> None:
        """merge_inputs: stages that read the batch alone share one barrier"""

    def place_weights(self) -> None:
        """
        Spreads the memory of the weights over the threads that will read it; after finish, before pack_rows.
        """

    def step(
        self,
        token_ids: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        positions: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        run_starts: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        page_ids: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        page_starts: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        output_rows: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        state_slots: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        first_fast_row: int,
        tree_parents: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        num_best: int = 0,
    ) -> bool:
        """
        Runs one step with the GIL released; the logits are then in `logits`, or, with num_best > 0, the best of each row in `best_ids` and `best_logits`.
        """

    def step_chain(
        self,
        token_ids: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        positions: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        run_starts: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        page_ids: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        page_starts: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        output_rows: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        ids: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu")],
        logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu")],
    ) -> None:
        """
        Runs the batch and then one token of each run after another, the best one behind its last; writes the best of each step, (steps, runs, best). Not for plans with recurrent state.
        """

    def max_best(self, num_outputs: int) -> int:
        """Most that num_best may be for a step with that many outputs; 0 = none."""

    @property
    def num_barriers(self) -> int:
        """Meetings of all threads in the last step."""

    def time_stages(self, on: bool) -> None:
        """
        Measures, while on, how long every stage takes. Turning it on starts from zero.
        """

    def stage_ns(self) -> list[int]:
        """
        Nanoseconds by stage, in the order of execution: those that clear pages and make rope tables, then the others as they were added. Empty while stages are not timed.
        """

    def release_pages(
        self,
        pages: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    ) -> None: ...
    def read_page(
        self,
        page: int,
        content: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu")],
    ) -> None:
        """Copies all of a page into `content`."""

    def write_page(
        self,
        page: int,
        content: Annotated[
            NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
    ) -> None:
        """Copies `content` into a page, all of it."""

    def copy_slots(
        self,
        page_ids: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        from_slots: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        to_slots: Annotated[
            NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
    ) -> None:
        """
        Copies keys and values of a sequence with these pages from slots to slots, one after another.
        """

    @property
    def logits(self) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
        """
        float32 (max_outputs, width of the output): a view of the buffer that steps overwrite.
        """

    @property
    def best_ids(self) -> Annotated[NDArray[numpy.int32], dict(shape=(None, None), writable=False)]:
        """int32 (rows, best): ids of the largest logits of each row, best first."""

    @property
    def best_logits(self) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None), writable=False)]:
        """float32 (rows, best): the logits of best_ids."""

    @property
    def weight_bytes(self) -> int: ...
    @property
    def scratch_bytes(self) -> int: ...
    @property
    def page_bytes(self) -> int: ...
    def set_states(self, num_slots: int, sizes: Sequence[int]) -> None:
        """sizes: floats of each state"""

    def causal_conv(self, x: int, weight: int, taps: int, out: int, state: int) -> None:
        """weight: a vector, the channels of each tap in turn"""

    def gated_delta(
        self,
        x: int,
        step: tuple[int, int, int, int],
        beta: tuple[int, int, int, int],
        decay: int,
        step_bias: int,
        shape: tuple[int, int, int, int, bool],
        out: int,
        state: int,
    ) -> None:
        """
        step, beta: (buffer, first column, columns, distance to the next ones); shape: (key heads, value heads, width of a key, of a value, whether key heads take turns)
        """

    def gated_norm(
        self, x: int, weight: int, num_heads: int, eps: float, gate: int, activation: str, out: int
    ) -> None:
        """Each head of x normalised, times activation(gate)."""

    def read_state(
        self,
        slot: int,
        content: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu")],
    ) -> None:
        """Copies all states of a slot into `content`."""

    def write_state(
        self,
        slot: int,
        content: Annotated[
            NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        position: int,
    ) -> None:
        """Copies `content` into a slot, whose sequence goes on at `position`."""

    @property
    def slot_bytes(self) -> int: ...

def causal_conv_state_floats(num_channels: int, num_taps: int) -> int:
    """Floats of a convolution's state."""

def gated_delta_state_floats(num_heads: int, key_dim: int, value_dim: int) -> int:
    """Floats of the state of a gated delta rule."""

def state_slot_bytes(sizes: Sequence[int]) -> int:
    """Bytes of a slot with states of so many floats."""

def recurrent_scratch_bytes(key_dims: Sequence[int], norms: Sequence[tuple[str, int]]) -> int:
    """
    Most scratch bytes that one thread needs for gated delta rules and gated norms (activation format, width).
    """

def quantise_rows(
    rows: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    type: str,
    gguf_type: int,
    importance: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ]
    | None = None,
    num_threads: int = 1,
    level: str = "",
) -> Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order="C")]:
    """
    Rows of F32, F16 or BF16 bytes (rows, row bytes) -> blocks of a GGUF type (rows, blocks' bytes).

    importance holds a weight per column. Raises ValueError for a type without quantiser, rows that are not
    whole blocks, and weights that are not finite.
    """

def has_quantiser(gguf_type: int) -> bool:
    """Whether quantise_rows can write this GGUF type."""
