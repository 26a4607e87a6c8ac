"""Recipes that synthetic models know: those of the quantiser, and one for each format that only others write.

Formats without a quantiser here (IQ1, IQ2, ternary ones) occur in published files, so their speed is measured too:
every matrix but the output projection is then of that one type, where published files mix types.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torchless.bench.shapes import ModelShape
from torchless.errors import InvalidRequestError
from torchless.quantization import recipes
from torchless.quantization.recipes import ModelFacts, Recipe

__all__ = ["RECIPES", "find_recipe", "shape_facts"]

_ONLY_READ = (
    Recipe("IQ3_XXS", 23, "IQ3_XXS", "Q5_K"),
    Recipe("IQ2_S", 28, "IQ2_S", "Q5_K"),
    Recipe("IQ2_XS", 20, "IQ2_XS", "Q5_K"),
    Recipe("IQ2_XXS", 19, "IQ2_XXS", "Q5_K"),
    Recipe("IQ1_M", 31, "IQ1_M", "Q5_K"),
    Recipe("IQ1_S", 24, "IQ1_S", "Q5_K"),
    Recipe("TQ2_0", 37, "TQ2_0"),
    Recipe("TQ1_0", 36, "TQ1_0"),
    Recipe("NVFP4", 39, "NVFP4", "Q8_0"),
    Recipe("Q2_0", 41, "Q2_0"),
    Recipe("Q1_0", 40, "Q1_0"),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    recipes.RECIPES | {recipe.name: recipe for recipe in _ONLY_READ}
)
"""By name."""


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, whatever its case; ``Q4_K`` is short for ``Q4_K_M``.

    Raises:
        InvalidRequestError: there is none; the message lists those that exist.
    """
    found = RECIPES.get(name.upper())
    if found is not None:
        return found
    try:
        return recipes.find_recipe(name)  # short names
    except InvalidRequestError:
        raise InvalidRequestError(f"unknown recipe {name!r}; known recipes: {', '.join(RECIPES)}") from None


def shape_facts(shape: ModelShape) -> ModelFacts:
    """What the quantiser's rules ask about a model of this shape."""
    return ModelFacts(
        num_layers=shape.num_layers,
        tied=shape.tied,
        queries_per_kv=shape.num_heads // shape.num_kv_heads,
        num_experts=shape.experts[0] if shape.experts is not None else 0,
    )
