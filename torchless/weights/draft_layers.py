"""Layers of a folder that only guess further tokens (multi-token prediction), behind those that make the next one.

DeepSeek V3 stores one as ``model.layers.61.``, with an embedding and an output layer of its own; config.json counts it
apart from the others (``num_nextn_predict_layers``). The next token does not depend on it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torchless.weights.stored_weights import FileTensor

__all__ = ["without_draft_layers"]

_log = logging.getLogger("torchless")


def without_draft_layers(
    tensors: Mapping[str, FileTensor], metadata: Mapping[str, Any]
) -> dict[str, FileTensor]:
    """All tensors but those of layers that draft; the log (INFO) says how many these are."""
    count = metadata.get("hf.num_nextn_predict_layers")
    first = metadata.get(f"{metadata['general.architecture']}.block_count")
    if not isinstance(count, int) or not isinstance(first, int):  # read, or refused, where settings are read
        return dict(tensors)
    begins = tuple(
        f"model.layers.{layer}." for layer in range(first, first + min(max(count, 0), len(tensors)))
    )
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(begins)}
    if len(kept) < len(tensors):
        _log.info("%d tensors of layers that draft are left out", len(tensors) - len(kept))
    return kept
