"""Passes of planish on an FX graph: BatchNorm is folded, and what comes back is a GraphModule that can be trained.

python examples/fx_pass.py
"""

from __future__ import annotations

import planish
import torch
from torch import nn


def main() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
    gm = torch.fx.symbolic_trace(module)
    x = torch.randn(4, 1, 8, 8)

    folded = planish.fx_pass(gm, (x,), dynamic_shapes={"input": {0: "batch"}})
    print(folded.code)
    print(f"largest difference: {(folded(x) - gm(x)).abs().max().item():.1e}")

    optimizer = torch.optim.SGD(folded.parameters(), lr=0.1)
    before = nn.functional.mse_loss(folded(x), torch.zeros(4, 10))
    before.backward()
    optimizer.step()
    after = nn.functional.mse_loss(folded(x), torch.zeros(4, 10))
    print(f"one step of training: {before.item():.4f} → {after.item():.4f}")


if __name__ == "__main__":
    main()
