"""What cannot be compiled is refused by name: dynamic shapes, unknown operators, broken installs."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from planish.backends.tvm import environment, link, rewrites
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.errors import ModelError, PlanishError, UsageError
from planish.ir.text import parse_model
from planish.targets.registry import resolve
from planish.targets.target import Target

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'


def _refused(text: str, directory: Path) -> ModelError:
    with pytest.raises(ModelError) as raised:
        compile_model(parse_model(HEAD + text), resolve("host"), directory)
    assert raised.value.hint and raised.value.where
    assert not list(directory.iterdir()), "nothing is left behind"
    return raised.value


def test_a_dynamic_shape_is_refused_with_the_option_that_fixes_it(tmp_path: Path) -> None:
    error = _refused("main (float[n,3,h,8] x) => (float[n,3,h,8] y) { y = Relu (x) }", tmp_path)
    assert "'x'" in error.what and "--shape x:1,3,224,8" in error.hint


def test_an_operator_without_a_kernel_is_named_with_its_node(tmp_path: Path) -> None:
    text = """main (float[4] x) => (float[n] y)
    {
      [first] a = Relu (x)
      [unknowable] y = StringNormalizer (a)
    }"""
    error = _refused(text, tmp_path)
    assert "StringNormalizer" in error.what and "unknowable" in error.where


def test_a_name_that_c_does_not_know_is_refused(tmp_path: Path) -> None:
    model = parse_model(HEAD + "main (float[4] x) => (float[4] y) { y = Relu (x) }")
    with pytest.raises(UsageError, match="my-model"):
        compile_model(model, resolve("host"), tmp_path, name="my-model")


def test_weights_listed_as_inputs_are_no_inputs_of_the_library(tmp_path: Path) -> None:
    model = parse_model(HEAD + "main (float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}> { y = Mul (x, w) }")
    model.graph.inputs.append(model.graph.initializers["w"])
    compile_model(model, resolve("host"), tmp_path, name="scale")
    compiled = CompiledModel(tmp_path / "scale.so", "scale")
    assert list(compiled.inputs) == ["x"]
    assert compiled(x=np.ones(4, np.float32))["y"].tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="shape"):
        compiled(x=np.ones(5, np.float32))


@pytest.mark.parametrize("tvm, ffi, word", [
    ("0.27.0.post1", "0.1.15.post1", "segfaults"),
    ("0.21.0", "0.1.14.post1", "not supported"),
    (None, None, "not installed"),
])  # fmt: skip
def test_versions_that_crash_or_lack_the_api_are_refused(tvm: str | None, ffi: str | None, word: str) -> None:
    with pytest.raises(PlanishError) as raised:
        environment.check_versions(tvm, ffi)
    assert word in raised.value.what and f"apache-tvm-ffi=={environment.FFI_VERSION}" in raised.value.hint


def test_the_pinned_versions_pass() -> None:
    environment.check_versions(environment.TVM_VERSION, environment.FFI_VERSION)


def _strange() -> Target:
    table = resolve("arm64")
    return Target(**{**table.__dict__, "llvm": {"kind": "llvm", "mtriple": "pdp11-unknown-none"}})


def test_an_llvm_without_the_target_is_reported() -> None:
    with pytest.raises(UsageError) as raised:
        environment.llvm_target(_strange())
    assert "pdp11" in raised.value.what


def test_without_ziglang_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PlanishError) as raised:
        link.compiler(resolve("arm64"))
    assert "planish[arm64]" in raised.value.hint


def test_an_attribute_that_the_importer_ignores_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(rewrites._RULES, "ConvTranspose")  # type: ignore[arg-type]  # ours reads it; TVM's does not
    text = (
        "main (float[1,2,3,3] x) => (float[1,2,6,6] y) <float[2,2,3,3] w = seeded(0)> "
        "{ y = ConvTranspose <strides = [2,2], output_shape = [6,6]> (x, w) }"
    )
    with pytest.raises(ModelError, match=r"it makes \[1, 2, 7, 7\] of what is \[1, 2, 6, 6\]"):
        compile_model(parse_model(HEAD + text), resolve("host"), tmp_path)


def test_a_failing_compiler_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("this is not C\n")
    with pytest.raises(PlanishError) as raised:
        link.link(resolve("host"), tmp_path, ["bad.c"], "bad")
    assert "error" in raised.value.what


def test_generated_c_is_clean_and_refuses_misaligned_buffers(tmp_path: Path) -> None:
    text = "main (float[2,3] x) => (float[2,3] y) { y = Relu (x) }"
    compile_model(parse_model(HEAD + text), resolve("host"), tmp_path)
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]
    command = [*link.compiler(resolve("host")), *strict, "model.c", "main.c"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "probe.c").write_text(
        '#include "model.h"\n'
        "int main(void) {\n"
        "  static _Alignas(64) char in[128], out[128], arena[MODEL_ARENA_BYTES + 128];\n"
        "  const void *ok_in[] = {in}, *odd_in[] = {in + 4};\n"
        "  void *ok_out[] = {out}, *odd_out[] = {out + 4};\n"
        "  return !(model_run(ok_in, ok_out, arena) == 0 && model_run(odd_in, ok_out, arena) == 1 &&\n"
        "           model_run(ok_in, odd_out, arena) == 1 && model_run((const void *[]){0}, ok_out, arena) == 1);\n"
        "}\n"
    )
    link.link(resolve("host"), tmp_path, ["probe.c", "model.c", "weights.S", "model.o"], "probe")
    assert subprocess.run([tmp_path / "probe"], check=False).returncode == 0
