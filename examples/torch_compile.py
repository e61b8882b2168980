"""`torch.compile` with the planish back end: exact passes, then ONNX Runtime, eager mode where that cannot be.

python examples/torch_compile.py
"""

from __future__ import annotations

import torch
from torch import nn


def network() -> nn.Module:
    """Two convolutions with BatchNorm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    ).eval()


def main() -> None:
    module = network()
    compiled = torch.compile(module, backend="planish", options={"target": "host"})
    with torch.inference_mode():
        for batch in (1, 4):
            x = torch.randn(batch, 3, 32, 32)
            difference = (compiled(x) - module(x)).abs().max().item()
            print(f"batch {batch}: largest difference to eager mode {difference:.1e}")


if __name__ == "__main__":
    main()
