"""Which tensor gets which block type: the field's recipes, with the choices that llama.cpp's quantiser makes.

A block type (`Q4_K`) is how numbers are stored; a recipe (`Q4_K_M`) is a choice of block type for every
tensor of a model. `tensor_type` is the rule set, `may_quantize` says which tensors it applies to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torchless import quants
from torchless.errors import InvalidRequestError

__all__ = ["RECIPES", "ModelFacts", "Recipe", "find_recipe", "fitting_type", "may_quantize", "tensor_type"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the rules ask about a model.

    Attributes:
        num_layers: transformer layers.
        tied: the output projection is the embedding.
        queries_per_kv: query heads per key/value head.
        num_experts: experts per layer; 0 for a dense model.
        has_importance: an importance matrix is used.
    """

    num_layers: int
    tied: bool = False
    queries_per_kv: int = 1
    num_experts: int = 0
    has_importance: bool = False


Rule = Callable[[int, ModelFacts], "str | None"]
"""Layer number and model -> block type, or None for the recipe's base."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe.

    Attributes:
        name: as users write it.
        file_type: the number that GGUF's ``general.file_type`` holds for it.
        base: block type of most matrices.
        head: block type of the output projection, or of the embedding where both are one tensor.
        rules: exceptions by what a tensor does in its layer (``attn_v``).
        expert: block type of expert matrices, where it is not `base`.
    """

    name: str
    file_type: int
    base: str
    head: str = "Q6_K"
    rules: Mapping[str, Rule] = field(default_factory=dict)
    expert: str | None = None


def _more_bits(layer: int, facts: ModelFacts) -> bool:
    """Half of the layers: the first and last eighth, and every third between."""
    n, eighth = facts.num_layers, facts.num_layers // 8
    return layer < eighth or layer >= 7 * n // 8 or (layer - eighth) % 3 == 2


def _always(name: str) -> Rule:
    return lambda layer, facts: name


def _where_more_bits(name: str) -> Rule:
    return lambda layer, facts: name if _more_bits(layer, facts) else None


def _first(name: str, count: int) -> Rule:
    return lambda layer, facts: name if layer < count else None


def _first_eighth(name: str) -> Rule:
    return lambda layer, facts: name if layer < facts.num_layers // 8 else None


def _first_eighth_by_importance(name: str, *, has_importance: bool) -> Rule:
    first = _first_eighth(name)
    return lambda layer, facts: first(layer, facts) if facts.has_importance == has_importance else None


def _grouped(many: str, few: str | None) -> Rule:
    """By whether at least four query heads share a key/value head, so that attn_v is small."""
    return lambda layer, facts: many if facts.queries_per_kv >= 4 else few


_Q2_K = {"attn_v": _grouped("Q4_K", "Q3_K"), "ffn_down": _always("Q3_K"), "attn_output": _always("Q3_K")}
_Q3_K_M: dict[str, Rule] = {
    "attn_v": lambda layer, facts: "Q5_K" if layer < 2 else "Q4_K",
    "ffn_down": lambda layer, facts: "Q5_K" if layer < facts.num_layers // 16 else "Q4_K",
    "attn_output": _always("Q4_K"),
}
_Q3_K_L = dict.fromkeys(("attn_v", "ffn_down", "attn_output"), _always("Q5_K"))
_IQ3_M: dict[str, Rule] = {
    "attn_v": _always("Q4_K"),
    "ffn_down": _first_eighth("Q4_K"),
    "attn_output": _always("Q4_K"),
}
_IQ4 = {
    "attn_v": _grouped("Q5_K", None),
    "ffn_down": _first_eighth_by_importance("Q5_K", has_importance=False),
}
_M = dict.fromkeys(("attn_v", "ffn_down"), _where_more_bits("Q6_K"))

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("F32", 0, "F32", "F32"),
        Recipe("F16", 1, "F16", "F16"),
        Recipe("BF16", 32, "BF16", "BF16"),
        Recipe("Q8_0", 7, "Q8_0", "Q8_0"),
        Recipe(
            "Q4_0", 2, "Q4_0", rules={"ffn_down": _first_eighth_by_importance("Q4_1", has_importance=True)}
        ),
        Recipe("Q4_1", 3, "Q4_1"),
        Recipe(
            "Q5_0", 8, "Q5_0", rules={"ffn_down": _first_eighth_by_importance("Q5_1", has_importance=True)}
        ),
        Recipe("Q5_1", 9, "Q5_1"),
        Recipe("Q2_K", 10, "Q2_K", rules=_Q2_K),
        Recipe("Q3_K_S", 11, "Q3_K"),
        Recipe("Q3_K_M", 12, "Q3_K", rules=_Q3_K_M),
        Recipe("Q3_K_L", 13, "Q3_K", rules=_Q3_K_L),
        Recipe("Q4_K_S", 14, "Q4_K", rules={"attn_v": _first("Q5_K", 4), "ffn_down": _first_eighth("Q5_K")}),
        Recipe("Q4_K_M", 15, "Q4_K", rules=_M),
        Recipe("Q5_K_S", 16, "Q5_K"),
        Recipe("Q5_K_M", 17, "Q5_K", rules=_M),
        Recipe("Q6_K", 18, "Q6_K"),
        Recipe("IQ3_S", 26, "IQ3_S", rules={"attn_v": _grouped("Q4_K", None)}),
        Recipe("IQ3_M", 27, "IQ3_S", rules=_IQ3_M),
        Recipe("IQ4_NL", 25, "IQ4_NL", rules=_IQ4),
        Recipe("IQ4_XS", 30, "IQ4_XS", rules=_IQ4),
        Recipe("MXFP4", 38, "MXFP4", "Q8_0"),
        Recipe("MXFP4_MOE", 38, "Q8_0", "Q8_0", expert="MXFP4"),
    )
}
"""By name. ``MXFP4`` stores every matrix so, ``MXFP4_MOE`` only those of experts, as llama.cpp does."""

_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_SMALLER_BLOCKS = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
    "IQ3_S": "IQ4_NL",
}
_KEPT = re.compile(
    r".*_norm\.weight|.*ffn_gate_inp.*\.weight|.*(position_embd|pos_embd|token_types)\.weight"
    r"|.*(ssm_conv1d|shortconv\.conv)\.weight|.*attn_rel_b\.weight|per_layer_model_proj\.weight"
)
_PLACE = re.compile(r"blk\.(\d+)\.([a-z0-9_]+)\.weight")
_LIKE_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")
_EIGHT_EXPERTS = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS")


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, whatever its case; ``Q4_K`` is short for ``Q4_K_M``.

    Raises:
        InvalidRequestError: there is none; the message lists those that exist.
    """
    key = name.upper()
    recipe = RECIPES.get(_ALIASES.get(key, key))
    if recipe is None:
        raise InvalidRequestError(f"unknown recipe {name!r}; known recipes: {', '.join(RECIPES)}")
    return recipe


def may_quantize(name: str, shape: tuple[int, ...]) -> bool:
    """Whether recipes apply to a tensor: a weight matrix, and not a small one that the rest hangs on."""
    return name.endswith("weight") and len(shape) >= 2 and _KEPT.fullmatch(name) is None


def tensor_type(recipe: Recipe, name: str, shape: tuple[int, ...], facts: ModelFacts) -> str:
    """Block type of the tensor `name` (GGUF's name, rows first) in a file of this recipe.

    Where the rows are not whole blocks of it, a type with smaller blocks and more bits takes its place.
    """
    return fitting_type(_wanted_type(recipe, name, shape, facts), shape[-1])


def fitting_type(name: str, row_elements: int) -> str:
    """`name`, or the next type whose blocks fill a row of so many weights; F16 fits every row."""
    wanted = quants.stored_type(name)
    assert wanted is not None, name
    if row_elements % wanted.block_elements == 0:
        return name
    return fitting_type(_SMALLER_BLOCKS.get(name, "F16"), row_elements)


def _wanted_type(recipe: Recipe, name: str, shape: tuple[int, ...], facts: ModelFacts) -> str:
    if name == "output.weight" or (facts.tied and name == "token_embd.weight"):
        base = quants.stored_type(recipe.base)
        assert base is not None
        return recipe.head if shape[-1] % base.block_elements == 0 else "Q8_0"
    if recipe.expert is not None and len(shape) > 2:
        return recipe.expert
    place = _PLACE.fullmatch(name)
    if place is None:
        return recipe.base
    layer, part = int(place[1]), place[2]
    if part in _LIKE_VALUES:
        part = "attn_v"
    if part.startswith("ffn_down"):
        part = "ffn_down"
    if facts.num_experts == 8 and recipe.expert is None and recipe.base not in ("F32", "F16", "BF16"):
        if part in ("attn_v", "attn_k"):
            return "Q8_0"
        if part == "attn_output":
            return "Q5_K" if recipe.name in _EIGHT_EXPERTS else recipe.base
    rule = recipe.rules.get(part)
    found = (rule(layer, facts) if rule is not None else None) or recipe.base
    if part == "attn_v" and facts.num_layers == 80 and found in ("Q3_K", "Q4_K"):
        return "Q5_K"  # 70B models: eight query heads share it, so it is small.
    return found
