"""Clustered weights: the search is exact, few levels are left, zeros stay, and the mean of the result is kept."""

from itertools import combinations

import numpy as np
import pytest
from planish.ir.graph import constant
from planish.ir.reference import run
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.quantize.clustering import cluster
from planish.targets.registry import resolve


def _error(levels: np.ndarray, weight: np.ndarray, chosen: np.ndarray) -> float:
    return float((weight * (levels - chosen) ** 2).sum())


@pytest.mark.parametrize("seed", range(5))
def test_no_other_set_of_values_is_nearer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.choice(np.r_[-20:0, 1:21], 9, replace=False))
    weight = rng.uniform(0.1, 1, 9)
    best = min(
        _error(levels, weight, values[np.abs(levels[:, None] - values).argmin(1)])
        for values in map(np.array, combinations(range(levels[0], levels[-1] + 1), 3))
    )
    assert _error(levels, weight, cluster(levels, weight, 3)) == pytest.approx(best)


def test_few_levels_stay_and_zero_is_one_of_them() -> None:
    levels = np.array([-7, -1, 0, 1, 90])
    assert cluster(levels, np.ones(5), 5).tolist() == levels.tolist()
    assert cluster(levels, np.ones(5), 3).tolist() == [-2, -2, 0, -2, 90]


def test_the_bias_takes_back_what_the_levels_add() -> None:
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[1,16,6,6] x) => (float[1,8,6,6] y) <float[8,16,1,1] w = seeded(3), float[8] b = seeded(4)>
    { y = Conv (x, w, b) }
    """)
    rng = np.random.default_rng(0)
    data = [{"x": rng.normal(1.5, 0.3, (1, 16, 6, 6)).astype(np.float32)} for _ in range(8)]
    target = resolve("ethos-u55-256")
    plain, clustered = model.clone(), model.clone()
    before = "activation-ranges,quantize"
    PassManager(before).run(plain, Context(target=target, data=data))
    PassManager(f"{before},cluster-weights{{levels=8 least=1}}").run(clustered, Context(target=target, data=data))
    weights = constant(clustered.graph.initializers["w_levels"])
    assert weights is not None and len(np.unique(weights)) <= 8
    difference = [run(clustered, feed)["y"] - run(plain, feed)["y"] for feed in data]
    assert np.abs(np.mean(difference, axis=(0, 1, 3, 4))).max() < 0.01 < np.abs(difference).max()
