"""Every way a model comes in: files, protos, onnx_ir models; normalised, checked, the source untouched."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from planish.errors import ModelError, UsageError
from planish.ir import metadata
from planish.ir.capture import capture
from planish.ir.execute import execute
from planish.passes.manager import PassManager

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


def _scale(ir_version: int, opset: int, *, listed: bool) -> onnx.ModelProto:
    extra = ", float[4] w" if listed else ""
    model = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> '
        f"g (float[n,4] x{extra}) => (float[n,4] y) <float[4] w = {{1,2,3,4}}> {{ y = Mul(x, w) }}"
    )
    return model


@pytest.mark.parametrize("ir_version", [3, 4, 5, 6, 7, 8, 9, 10])
def test_every_ir_version_is_read_and_runs(ir_version: int) -> None:
    model = capture(_scale(ir_version, 8, listed=ir_version == 3))
    assert [v.name for v in model.graph.inputs] == ["x"]
    np.testing.assert_array_equal(execute(model, {"x": np.ones((1, 4), np.float32)})["y"], [[1, 2, 3, 4]])


def test_a_file_marked_newer_than_what_it_holds_runs() -> None:
    model = capture(_scale(onnx.IR_VERSION, 13, listed=False))
    np.testing.assert_array_equal(execute(model, {"x": np.ones((1, 4), np.float32)})["y"], [[1, 2, 3, 4]])


@pytest.mark.parametrize("opset", range(7, 24))
def test_every_opset_from_7_is_read(opset: int) -> None:
    assert capture(_scale(8, opset, listed=False)).opset_imports[""] == opset


def test_the_long_name_of_the_default_domain_is_made_the_short_one() -> None:
    proto = _scale(8, 13, listed=False)
    proto.opset_import[0].domain = "ai.onnx"
    assert capture(proto).opset_imports == {"": 13}


def test_weights_that_a_caller_could_override_become_constants_and_it_is_said() -> None:
    model = capture(_scale(8, 13, listed=True))
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert "1 weights" in metadata.get(model, "planish.capture")[0]
    assert metadata.get(capture(_scale(3, 8, listed=True)), "planish.capture") is None, "IR version 3 has no other form"


def test_the_source_is_never_modified() -> None:
    proto = _scale(8, 13, listed=True)
    before = proto.SerializeToString()
    capture(proto)
    assert proto.SerializeToString() == before
    model = ir.from_proto(proto)
    capture(model).graph.inputs.clear()
    assert [v.name for v in model.graph.inputs] == ["x", "w"]


def test_external_weights_stay_on_disk(tmp_path: Path) -> None:
    onnx.save(onnx.load(DIGITS), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = capture(tmp_path / "m.onnx")
    assert any(isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values())
    image = {"image": np.ones((1, 1, 8, 8), np.float32)}
    inline = execute(capture(DIGITS), image)
    np.testing.assert_array_equal(next(iter(execute(model, image).values())), next(iter(inline.values())))


def test_nodes_without_a_name_get_one() -> None:
    model = capture(_scale(8, 13, listed=False))
    assert all(node.name for node in model.graph)


def test_batch_norm_is_kept() -> None:
    assert any(node.op_type == "BatchNormalization" for node in capture(DIGITS).graph)


def test_what_is_no_model_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="dict is not a model"):
        capture({})


def test_a_proto_without_a_graph_is_a_model_error() -> None:
    with pytest.raises(ModelError) as caught:
        capture(onnx.ModelProto())
    assert caught.value.where and caught.value.hint


def test_a_wrong_stated_shape_of_a_computed_value_is_dropped_and_said() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[2,4] x) => (float[2,4] y) <float[3,9] a> '
        "{ a = Relu(x) y = Neg(a) }"
    )
    model = capture(proto)
    assert "dropped" in metadata.get(model, "planish.capture")[0]
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(execute(model, {"x": x})["y"], -x)


def test_passes_that_rename_what_the_source_holds_rename_only_their_own() -> None:
    tensor = onnx.numpy_helper.from_array(np.ones(2, np.float32), "")
    constant = onnx.helper.make_node("Constant", [], ["k"], value=tensor)
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "k")]
    graph = onnx.helper.make_graph([constant], "g", info[:1], info[1:])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    before, model = proto.SerializeToString(), ir.from_proto(proto)
    PassManager("lift-constants").run(capture(proto))
    assert proto.SerializeToString() == before
    PassManager("lift-constants").run(capture(model))
    assert ir.to_proto(model).SerializeToString() == before


def test_an_output_without_a_shape_gets_the_inferred_one() -> None:
    proto = _scale(8, 13, listed=False)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert str(capture(proto).graph.outputs[0].shape) == "[n,4]"


def test_an_input_without_a_shape_is_a_model_error_that_names_it() -> None:
    proto = _scale(8, 13, listed=False)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="number of dimensions of the graph input 'x'"):
        capture(proto)


def test_a_graph_without_a_name_gets_one() -> None:
    proto = _scale(8, 13, listed=False)
    proto.graph.ClearField("name")
    onnx.checker.check_model(ir.to_proto(capture(proto)))


def test_notes_of_an_earlier_capture_are_not_taken_over() -> None:
    proto = _scale(8, 13, listed=False)
    proto.metadata_props.add(key="planish.capture", value="{damaged")
    assert metadata.get(capture(proto), "planish.capture") is None
