"""arm64: depthwise convolutions by dot products, and the short way from sums to levels, give the reference's bits."""

from pathlib import Path

import numpy as np
import pytest
from planish.backends.tvm.kernels import assembly, build
from planish.backends.tvm.lower import lower
from planish.backends.tvm.operators.workload import space
from planish.ir.reference import run
from planish.targets.registry import resolve

from ..arm64_emulation import emulated
from ..convolutions import Conv, side_by_side
from ..quantized_graph import normal_feeds

TARGET = resolve("arm64/neoverse-n1")


def _depthwise(
    channels: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: int = 1,
    zero: int = 128,
) -> Conv:
    return Conv("depthwise", channels, 2, size, kernel, strides, (dilation, 1), pads, zero)


CONVS = [
    _depthwise(32, (9, 8), (3, 3), (1, 1), (1, 1, 1, 1)),
    _depthwise(48, (7, 7), (3, 3), (1, 1), (1, 1, 1, 1), zero=0),
    _depthwise(32, (14, 14), (3, 3), (2, 2), (0, 0, 1, 1), zero=255),
    _depthwise(32, (15, 15), (3, 3), (2, 2), (1, 1, 1, 1), zero=3),
    _depthwise(64, (6, 13), (5, 4), (2, 2), (2, 0, 2, 3), zero=77),
    _depthwise(32, (9, 5), (3, 2), (1, 1), (0, 1, 0, 0), dilation=2, zero=200),
    _depthwise(32, (4, 3), (3, 3), (1, 1), (0, 0, 0, 0)),  # one column
    _depthwise(16, (5, 6), (3, 3), (1, 1), (1, 1, 1, 1)),
    Conv("one", 1200, 8, (3, 4), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 11),  # sums that float32 cannot count
    Conv("one", 24, 40, (5, 4), (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 250),
]


@pytest.mark.parametrize("pick", [None, -1])
def test_convolutions_equal_the_reference_under_any_config(pick: int | None, tmp_path: Path) -> None:
    model = side_by_side(CONVS, np.int8)
    workloads = lower(model, TARGET)[0].configs
    assert sum(type(workload).__name__ == "DepthwiseDot" for workload in workloads) == 7
    configs = None if pick is None else {workload: space(workload)[pick] for workload in workloads}
    feeds = normal_feeds(model)
    got = emulated(model, "neoverse-n1", feeds, tmp_path, configs=configs, static=True)
    for conv, (name, want) in zip(CONVS, run(model, feeds).items(), strict=True):
        np.testing.assert_array_equal(got[name], want, err_msg=str(conv))


def test_small_sums_become_levels_without_conversions() -> None:
    """Sums are counted in the bits of float32s; a conversion stays where a sum may leave them."""
    for conv, converts in ((CONVS[0], False), (CONVS[9], False), (CONVS[8], True)):
        found = lower(side_by_side([conv], np.int8), TARGET)[0].kernels
        kernels = {name: kernel for name, kernel in found.items() if name.startswith("conv")}
        text = assembly(build(kernels, "", TARGET)[0])
        assert "sdot" in text
        assert ("scvtf" in text) == converts
        assert not any(name in text for name in ("frint", "fcvt"))
