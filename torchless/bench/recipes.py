"""Which tensor gets which block type in a quantised file: the field's recipes, for llama-family models.

A block type (`Q4_K`) is how numbers are stored; a recipe (`Q4_K_M`) is a choice of block type for every
tensor, the one that llama.cpp's quantiser makes for a file of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torchless.errors import InvalidRequestError

__all__ = ["RECIPES", "Recipe", "find_recipe", "tensor_type"]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a matrix is: what the exceptions of recipes depend on."""

    layer: int
    num_layers: int
    queries_per_kv: int

    @property
    def in_first_eighth(self) -> bool:
        return self.layer < self.num_layers // 8

    @property
    def gets_more_bits(self) -> bool:
        """Half of the layers: the first and last eighth, and every third between."""
        eighth = self.num_layers // 8
        last = self.layer >= 7 * self.num_layers // 8
        return self.in_first_eighth or last or (self.layer - eighth) % 3 == 2


Rule = Callable[[_Place], "str | None"]
"""The block type at a place; None for the recipe's base."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe.

    Attributes:
        file_type: the number that GGUF's ``general.file_type`` holds for it.
        base: block type of most matrices.
        head: block type of the output projection, or of the embedding where both are one tensor.
        exceptions: rules by what a matrix does in its layer (``attn_v``).
    """

    file_type: int
    base: str
    head: str
    exceptions: Mapping[str, Rule] = field(default_factory=dict)


def _where_more_bits(name: str) -> Rule:
    return lambda place: name if place.gets_more_bits else None


def _always(name: str) -> Rule:
    return lambda place: name


def _first_eighth(name: str) -> Rule:
    return lambda place: name if place.in_first_eighth else None


_Q2_K: dict[str, Rule] = {
    "attn_v": lambda place: "Q4_K" if place.queries_per_kv >= 4 else "Q3_K",
    "ffn_down": _always("Q3_K"),
    "attn_output": _always("Q3_K"),
}
_Q3_K_M: dict[str, Rule] = {
    "attn_v": lambda place: "Q5_K" if place.layer < 2 else "Q4_K",
    "ffn_down": lambda place: "Q5_K" if place.layer < place.num_layers // 16 else "Q4_K",
    "attn_output": _always("Q4_K"),
}
_Q3_K_L: dict[str, Rule] = dict.fromkeys(("attn_v", "ffn_down", "attn_output"), _always("Q5_K"))
_M: dict[str, Rule] = dict.fromkeys(("attn_v", "ffn_down"), _where_more_bits("Q6_K"))
_Q4_K_S: dict[str, Rule] = {
    "attn_v": lambda place: "Q5_K" if place.layer < 4 else None,
    "ffn_down": _first_eighth("Q5_K"),
}
_IQ4: dict[str, Rule] = {
    "attn_v": lambda place: "Q5_K" if place.queries_per_kv >= 4 else None,
    "ffn_down": _first_eighth("Q5_K"),
}

RECIPES: dict[str, Recipe] = {
    "F32": Recipe(0, "F32", "F32"),
    "F16": Recipe(1, "F16", "F16"),
    "BF16": Recipe(32, "BF16", "BF16"),
    "Q8_0": Recipe(7, "Q8_0", "Q8_0"),
    "Q4_0": Recipe(2, "Q4_0", "Q6_K"),
    "Q4_1": Recipe(3, "Q4_1", "Q6_K"),
    "Q5_0": Recipe(8, "Q5_0", "Q6_K"),
    "Q5_1": Recipe(9, "Q5_1", "Q6_K"),
    "Q6_K": Recipe(18, "Q6_K", "Q6_K"),
    "Q2_K": Recipe(10, "Q2_K", "Q6_K", _Q2_K),
    "Q3_K_S": Recipe(11, "Q3_K", "Q6_K"),
    "Q3_K_M": Recipe(12, "Q3_K", "Q6_K", _Q3_K_M),
    "Q3_K_L": Recipe(13, "Q3_K", "Q6_K", _Q3_K_L),
    "Q4_K_S": Recipe(14, "Q4_K", "Q6_K", _Q4_K_S),
    "Q4_K_M": Recipe(15, "Q4_K", "Q6_K", _M),
    "Q5_K_S": Recipe(16, "Q5_K", "Q6_K"),
    "Q5_K_M": Recipe(17, "Q5_K", "Q6_K", _M),
    "IQ4_NL": Recipe(25, "IQ4_NL", "Q6_K", _IQ4),
    "IQ4_XS": Recipe(30, "IQ4_XS", "Q6_K", _IQ4),
    "IQ3_S": Recipe(
        26, "IQ3_S", "Q6_K", {"attn_v": lambda place: "Q4_K" if place.queries_per_kv >= 4 else None}
    ),
    "MXFP4": Recipe(38, "MXFP4", "Q8_0"),
    "IQ3_XXS": Recipe(23, "IQ3_XXS", "Q5_K"),
    "IQ2_S": Recipe(28, "IQ2_S", "Q5_K"),
    "IQ2_XS": Recipe(20, "IQ2_XS", "Q5_K"),
    "IQ2_XXS": Recipe(19, "IQ2_XXS", "Q5_K"),
    "IQ1_M": Recipe(31, "IQ1_M", "Q5_K"),
    "IQ1_S": Recipe(24, "IQ1_S", "Q5_K"),
    "TQ2_0": Recipe(37, "TQ2_0", "Q6_K"),
    "TQ1_0": Recipe(36, "TQ1_0", "Q6_K"),
    "NVFP4": Recipe(39, "NVFP4", "Q8_0"),
    "Q2_0": Recipe(41, "Q2_0", "Q6_K"),
    "Q1_0": Recipe(40, "Q1_0", "Q6_K"),
}
"""By name. From ``MXFP4`` on, every matrix but the head is of one type, to measure it; llama.cpp mixes types."""


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, whatever its case.

    Raises:
        InvalidRequestError: there is none; the message lists those that exist.
    """
    recipe = RECIPES.get(name.upper())
    if recipe is None:
        raise InvalidRequestError(f"unknown recipe {name!r}; known recipes: {', '.join(RECIPES)}")
    return recipe


def tensor_type(
    recipe: Recipe, name: str, num_dims: int, *, num_layers: int, tied: bool, queries_per_kv: int
) -> str:
    """Block type of the tensor `name` (GGUF's name) in a file of this recipe.

    `queries_per_kv` is the number of query heads that share a key/value head, `tied` whether the output
    projection is the embedding.
    """
    if num_dims < 2:
        return "F32"
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return recipe.head
    if not name.startswith("blk."):
        return recipe.base
    _, layer, kind, _ = name.split(".")
    if kind == "ffn_gate_inp":  # a router stays in floats
        return "F32"
    rule = recipe.exceptions.get(kind.removesuffix("_exps"))
    found = rule(_Place(int(layer), num_layers, queries_per_kv)) if rule is not None else None
    return found or recipe.base
