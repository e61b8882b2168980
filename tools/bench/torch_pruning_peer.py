"""Torch-Pruning's side of `groups`: python torch_pruning_peer.py PACK, run by an interpreter that has torch-pruning.

Prints one line of JSON: model -> output channels of its layers, and the share that Torch-Pruning removes with a result
that still runs and gives outputs of the same shape.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

INPUTS = {
    "mobilenetv2_tf": (1, 3, 224, 224),
    "mobilenetv1_075": (1, 3, 224, 224),
    "resnet20_cifar10": (1, 3, 32, 32),
    "resnet8_cifar10": (1, 3, 32, 32),
    "kws_dscnn": (1, 1, 49, 10),
    "lenet_mnist": (1, 1, 28, 28),
    "imdn_x2": (1, 3, 32, 32),
    "style_starry_night": (1, 3, 64, 64),
    "nsnet2": (1, 20, 161),
    "vit_mnist": (1, 1, 28, 28),
}


def removable(net: Any, x: Any, name: str) -> bool:
    """Whether the first output channel of a layer can be removed with all that depends on it."""
    torch: Any = import_module("torch")
    pruning: Any = import_module("torch_pruning")
    trial = copy.deepcopy(net)
    layer = trial.get_submodule(name)
    try:
        before = [tuple(y.shape) for y in _tensors(trial(x))]
        graph = pruning.DependencyGraph().build_dependency(trial, example_inputs=x)
        function = pruning.pruner.function.PrunerBox[pruning.ops.module2type(layer)].prune_out_channels
        group = graph.get_pruning_group(layer, function, idxs=[0])
        if not graph.check_pruning_group(group):
            return False
        group.prune()
        with torch.no_grad():
            return [tuple(y.shape) for y in _tensors(trial(x))] == before
    except Exception:  # a network that no longer runs was not pruned
        return False


def _tensors(found: Any) -> list[Any]:
    return [found] if hasattr(found, "shape") else list(found)


def main() -> None:
    torch: Any = import_module("torch")
    pack = Path(sys.argv[1])
    spec = importlib.util.spec_from_file_location("nets", pack / "nets.py")
    assert spec is not None and spec.loader is not None
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    result = {}
    for model, shape in INPUTS.items():
        net, x = nets.build(model), torch.zeros(shape)
        total = gone = 0
        for name, layer in net.named_modules():
            width = getattr(layer, "out_channels", None) or getattr(layer, "out_features", None)
            if width is not None:
                total += width
                gone += width if removable(net, x, name) else 0
        result[model] = {"channels": total, "prunable": round(gone / max(total, 1), 4)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
