"""Configs of kernels: chosen by a model, overridden from outside, equal to the bit whatever they are."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.backends.tvm import kernels
from planish.backends.tvm.lower import lower
from planish.backends.tvm.operators.workload import Config, Workload, choose, space
from planish.ir.shapes import infer
from planish.ir.text import parse_model
from planish.targets.registry import resolve
from planish.targets.target import Target

from ..integer_layers import conv


def _one(target: Target) -> tuple[Workload, Config]:
    ((workload, config),) = lower(conv(), target)[0].configs.items()
    return workload, config


@pytest.mark.parametrize("cpu", ["cortex-a53", "neoverse-n1", "neoverse-v1"])
def test_the_chosen_config_is_one_of_the_space_and_plain_data(cpu: str) -> None:
    workload, config = _one(resolve(f"arm64/{cpu}"))
    assert config == choose(workload)
    assert config in space(workload)
    assert len(set(space(workload))) == len(space(workload)) > 4
    stored = json.loads(json.dumps([asdict(workload), asdict(config)]))
    assert Config(**stored[1]) == config
    lists = {name: tuple(v) if isinstance(v, list) else v for name, v in stored[0].items()}
    assert Workload(**lists) == workload


@pytest.mark.parametrize("cpu", ["neoverse-n1", "neoverse-v1"])
def test_a_given_config_makes_the_kernel(cpu: str) -> None:
    target = resolve(f"arm64/{cpu}")
    workload, chosen = _one(target)
    given = min(space(workload), key=lambda config: config.positions * config.vectors)
    assert given != chosen
    program, _ = lower(conv(), target, {workload: given})
    assert program.configs == {workload: given}
    instruction = "smmla" if cpu == "neoverse-v1" else "sdot"
    texts = [
        kernels.assembly(kernels.build(found.kernels, "k_", target)[0]) for found in (program, lower(conv(), target)[0])
    ]
    assert 0 < texts[0].count(f"\t{instruction}\t") < texts[1].count(f"\t{instruction}\t")


def test_every_config_computes_the_same_bits(tmp_path: Path) -> None:
    from planish.backends.tvm.compile import compile_model
    from planish.backends.tvm.load import CompiledModel

    x = np.random.default_rng(0).normal(size=(1, 16, 6, 12)).astype(np.float32)
    target = resolve("host")
    workload, _ = _one(target)
    found = []
    for i, config in enumerate(space(workload)[::3]):
        compile_model(conv(), target, tmp_path / str(i), configs={workload: config})
        found.append(CompiledModel(tmp_path / str(i) / "model.so")(x=x)["y"])
    assert len(found) > 1
    for result in found[1:]:
        np.testing.assert_array_equal(result, found[0])


MIXED = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[1,8,14,14] x) => (float[1,48] y)
  <float[32,8,1,1] a = seeded(0), float[32,1,3,3] b = seeded(1), float[48,6272] c = seeded(2), int64[2] s = {1, 6272}>
{
  e = Conv (x, a)
  r = Relu (e)
  d = Conv <group = 32, pads = [1,1,1,1]> (r, b)
  f = Reshape (d, s)
  y = Gemm <transB = 1> (f, c)
}
"""


def test_float_kernels_have_configs_too(tmp_path: Path) -> None:
    """A 1×1 and a depthwise convolution and a dense layer: workloads of their own, the same bits under any config."""
    from planish.backends.tvm.compile import compile_model
    from planish.backends.tvm.load import CompiledModel

    model: ir.Model = parse_model(MIXED)
    infer(model)
    target = resolve("host")
    chosen = lower(model, target)[0].configs
    kinds = sorted(type(workload).__name__ for workload in chosen)
    assert kinds == ["DepthwiseWorkload", "FloatProduct", "FloatProduct"]
    assert all(config == choose(workload) and config in space(workload) for workload, config in chosen.items())
    x = np.random.default_rng(0).normal(size=(1, 8, 14, 14)).astype(np.float32)
    found = []
    for i in (0, -1):
        compile_model(model, target, tmp_path / str(i), configs={w: space(w)[i] for w in chosen})
        found.append(CompiledModel(tmp_path / str(i) / "model.so")(x=x)["y"])
    np.testing.assert_array_equal(found[0], found[1])
    assert np.unique(found[0]).size > 40
