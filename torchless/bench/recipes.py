"""Which tensor gets which block type in a quantised file: the field's recipes, for llama-family models.

A block type (`Q4_K`) is how numbers are stored; a recipe (`Q4_K_M`) is a choice of block type for every
tensor, the one that llama.cpp's quantiser makes for a file of that name.
"""

from __future__ import annotations

from dataclasses import dataclass

from torchless.errors import InvalidRequestError

__all__ = ["RECIPES", "Recipe", "find_recipe", "tensor_type"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe.

    Attributes:
        file_type: the number that GGUF's ``general.file_type`` holds for it.
        base: block type of most matrices.
        head: block type of the output projection, or of the embedding where both are one tensor.
        value_and_down: ``"plain"`` keeps `base` for attn_v and ffn_down; ``"first_layers"`` gives the first
            layers Q5_K; ``"more_bits"`` gives every layer that `_use_more_bits` picks Q6_K.
    """

    file_type: int
    base: str
    head: str
    value_and_down: str = "plain"


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
    "Q4_K_S": Recipe(14, "Q4_K", "Q6_K", "first_layers"),
    "Q4_K_M": Recipe(15, "Q4_K", "Q6_K", "more_bits"),
    "Q5_K_S": Recipe(16, "Q5_K", "Q6_K"),
    "Q5_K_M": Recipe(17, "Q5_K", "Q6_K", "more_bits"),
}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, whatever its case.

    Raises:
        InvalidRequestError: there is none; the message lists those that exist.
    """
    recipe = RECIPES.get(name.upper())
    if recipe is None:
        raise InvalidRequestError(f"unknown recipe {name!r}; known recipes: {', '.join(RECIPES)}")
    return recipe


def tensor_type(recipe: Recipe, name: str, num_dims: int, *, num_layers: int, tied: bool) -> str:
    """Block type of the tensor `name` (GGUF's name) in a file of this recipe."""
    if num_dims < 2:
        return "F32"
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return recipe.head
    if not name.startswith("blk."):
        return recipe.base
    _, layer_text, kind, _ = name.split(".")
    layer = int(layer_text)
    if kind not in ("attn_v", "ffn_down") or recipe.value_and_down == "plain":
        return recipe.base
    if recipe.value_and_down == "more_bits":
        return "Q6_K" if _use_more_bits(layer, num_layers) else recipe.base
    num_first = 4 if kind == "attn_v" else num_layers // 8
    return "Q5_K" if layer < num_first else recipe.base


def _use_more_bits(layer: int, num_layers: int) -> bool:
    """Half of the layers: the first and last eighth, and every third between."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2
