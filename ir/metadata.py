"""Facts that passes leave on nodes and values for later passes: namespaced strings in `metadata_props`.

They survive cloning and serialisation and are dropped on export unless asked for.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = [
    "ACTIVATIONS",
    "ENCODING",
    "EVIDENCE",
    "FLOAT",
    "MADE_BY",
    "PREFIX",
    "REPLACED",
    "SOURCE",
    "STATISTICS",
    "drop",
    "get",
    "move",
    "put",
]

PREFIX = "planish."
STATISTICS = PREFIX + "statistics"  # value: {"mean": [...], "std": [...], "axis": 1, "source": "..."}, per channel
ENCODING = PREFIX + "encoding"  # value: the quantization encoding chosen for it (ir/quantization.py)
EVIDENCE = PREFIX + "evidence"  # value: {"low": float, "high": float, "source": "...", ...} behind its range
ACTIVATIONS = PREFIX + "activations"  # model: the type its activations are to have, where not the target's own
FLOAT = PREFIX + "float"  # node: the reason why it must not become integer
SOURCE = PREFIX + "source"  # node: names of the captured nodes it came from
REPLACED = PREFIX + "replaced"  # value: {"input", "output"}, names of the original's values around its replaced block
MADE_BY = PREFIX + "made_by"  # node: the pass that made it

_Site = ir.Node | ir.Value | ir.Graph | ir.Model


def put(site: _Site, key: str, fact: Any) -> None:
    """Attach a JSON-able fact (numpy arrays and scalars allowed) under a namespaced key."""
    site.metadata_props[key] = json.dumps(fact, default=_plain, separators=(",", ":"), sort_keys=True)


def get(site: _Site, key: str) -> Any | None:
    """The fact under a key, or None."""
    text = site.metadata_props.get(key)
    return None if text is None else json.loads(text)


def move(source: ir.Value, target: ir.Value, *keys: str) -> None:
    """Carry facts over to the value that takes another's place."""
    for key in keys:
        if key in source.metadata_props:
            target.metadata_props[key] = source.metadata_props[key]


def drop(model: ir.Model) -> None:
    """Remove every fact of ours from the model, its graphs, nodes and values."""
    sites: list[_Site] = [model]
    for graph in model.graphs():
        sites += [graph, *graph.inputs, *graph.initializers.values()]
        for node in graph:
            sites += [node, *node.outputs]
    for site in sites:
        for key in [k for k in site.metadata_props if k.startswith(PREFIX)]:
            del site.metadata_props[key]


def _plain(fact: object) -> object:
    if isinstance(fact, np.ndarray):
        return fact.tolist()
    if isinstance(fact, np.generic):
        return fact.item()
    raise TypeError(f"{type(fact).__name__} cannot be kept as metadata")
