"""Train a small residual network on scikit-learn's handwritten digits and write it as examples/digits.onnx.

The graph is built node by node from the trained weights, with BatchNormalization kept, so that the file holds what a
training framework has before any optimization. Seeds are fixed and one thread is used: on one machine with one
version of torch two runs give the same bytes.

    python examples/train_digits.py [--output FILE] [--epochs N]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
State = dict[str, Floats]

EPSILON = 1e-5
CLASSES = 10


@dataclass(frozen=True)
class Layer:
    """A 3×3 convolution and its BatchNorm; `skip` names the layer whose output is added before the ReLU."""

    name: str
    inputs: int
    outputs: int
    stride: int = 1
    skip: str | None = None


LAYERS = (
    Layer("stem", 1, 16),
    Layer("block_a", 16, 16),
    Layer("block_b", 16, 16, skip="stem"),
    Layer("down", 16, 32, stride=2),
    Layer("deep_a", 32, 32),
    Layer("deep_b", 32, 32, skip="down"),
)


def split() -> tuple[Floats, Labels, Floats, Labels]:
    """Training and test images [n, 1, 8, 8] in 0…1 with their labels; a quarter is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = parts
    return train_images, train_labels, test_images, test_labels


def train(epochs: int, images: Floats, labels: Labels) -> State:
    """Weights and BatchNorm statistics by name after `epochs` rounds of SGD with shifts of one pixel."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            convs = {c.name: nn.Conv2d(c.inputs, c.outputs, 3, c.stride, 1, bias=False) for c in LAYERS}
            self.conv = nn.ModuleDict(convs)
            self.bn = nn.ModuleDict({c.name: nn.BatchNorm2d(c.outputs, eps=EPSILON) for c in LAYERS})
            self.classifier = nn.Linear(LAYERS[-1].outputs, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            done: dict[str, torch.Tensor] = {}
            for c in LAYERS:
                x = self.bn[c.name](self.conv[c.name](x))
                x = torch.relu(x + done[c.skip] if c.skip else x)
                done[c.name] = x
            logits: torch.Tensor = self.classifier(x.mean((2, 3)))
            return logits

    network = Network()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    batch = 64
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            pick = order[start : start + batch]
            dy, dx = torch.randint(-1, 2, (2,)).tolist()
            padded = nn.functional.pad(x[pick], (1, 1, 1, 1))
            shifted = padded[:, :, 1 + dy : 9 + dy, 1 + dx : 9 + dx]
            loss = nn.functional.cross_entropy(network(shifted), y[pick], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {name: tensor.numpy() for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def to_onnx(state: State) -> onnx.ModelProto:
    """The network as ONNX: Conv ▸ BatchNormalization ▸ [Add] ▸ Relu, then a mean over the image and one Gemm."""
    nodes: list[Any] = []
    value = "image"
    for c in LAYERS:
        pads = [1, 1, 1, 1]
        strides = [c.stride, c.stride]
        conv, bn, out = f"{c.name}.conv", f"{c.name}.bn", f"{c.name}.out"
        attributes = {"kernel_shape": [3, 3], "strides": strides, "pads": pads}
        nodes.append(helper.make_node("Conv", [value, f"conv.{c.name}.weight"], [conv], conv, **attributes))
        parts = [f"bn.{c.name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        nodes.append(helper.make_node("BatchNormalization", [conv, *parts], [bn], bn, epsilon=EPSILON))
        value = bn
        if c.skip:
            value = f"{c.name}.add"
            nodes.append(helper.make_node("Add", [bn, f"{c.skip}.out"], [value], value))
        nodes.append(helper.make_node("Relu", [value], [out], out))
        value = out
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pool"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pool"], ["features"], "features"))
    classifier = ["features", "classifier.weight", "classifier.bias"]
    nodes.append(helper.make_node("Gemm", classifier, ["logits"], "classifier", transB=1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    weights = [numpy_helper.from_array(array, name) for name, array in state.items()]
    graph = helper.make_graph(nodes, "digits", [image], [logits], weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="train_digits"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def accuracy(model: bytes | str, images: Floats, labels: Labels) -> float:
    """Share of images whose largest logit is the label, in ONNX Runtime; `model` is bytes or a path."""
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images})
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("digits.onnx"))
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    train_images, train_labels, test_images, test_labels = split()
    data = to_onnx(train(arguments.epochs, train_images, train_labels)).SerializeToString(deterministic=True)
    arguments.output.write_bytes(data)
    share = accuracy(data, test_images, test_labels)
    print(f"{arguments.output}: {len(data)} bytes, test accuracy {share:.2%} of {len(test_labels)} images")


if __name__ == "__main__":
    main()
