"""Mixed precision of training: products in bfloat16 where the device is faster at them. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["mixed"]


def mixed(device: torch.device) -> Any:
    """A context in which layers compute in bfloat16, if the device has instructions for it; sums stay in float32."""
    if device.type == "cuda":
        faster = bool(torch.cuda.is_bf16_supported())
    else:
        faster = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16, enabled=faster)
