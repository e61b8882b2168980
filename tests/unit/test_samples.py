"""The user's samples become feeds that fit, or a message that says what does not."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from planish.errors import UsageError
from planish.samples import chunks, load_samples


def _model(**shapes: list[int | str]) -> ir.Model:
    inputs = [
        ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        for name, shape in shapes.items()
    ]
    return ir.Model(ir.Graph(inputs, [], nodes=[], opset_imports={"": 20}), ir_version=10)


def test_an_npz_is_split_along_its_first_axis(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float64)
    np.savez(tmp_path / "few.npz", x=images)
    feeds = load_samples(tmp_path / "few.npz", _model(x=["batch", 3, 4]))
    assert len(feeds) == 5
    assert feeds[2]["x"].dtype == np.float32
    np.testing.assert_allclose(feeds[2]["x"][0], images[2], rtol=1e-6)


def test_a_fixed_batch_takes_that_many_samples_at_a_time() -> None:
    feeds = load_samples(np.zeros((9, 3), np.float32), _model(x=[4, 3]))
    assert [f["x"].shape for f in feeds] == [(4, 3), (4, 3)]


def test_an_array_of_any_name_serves_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", whatever=np.zeros((2, 3)))
    assert len(load_samples(tmp_path / "few.npz", _model(x=["n", 3]))) == 2


def test_an_iterable_of_samples_is_read_only_as_far_as_needed() -> None:
    drawn = []

    def stream():  # type: ignore[no-untyped-def]
        for i in range(1000):
            drawn.append(i)
            yield np.full((1, 3), i, np.float32)

    assert len(load_samples(stream(), _model(x=["n", 3]), limit=4)) == 4
    assert len(drawn) == 4


def test_all_of_the_data_is_read_with_its_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "1.npz", x=np.zeros((300, 3)), labels=np.arange(300))
    np.savez(tmp_path / "2.npz", x=np.ones((5, 3)), labels=np.arange(5))
    (first, labels), (second, _) = chunks(tmp_path, _model(x=[1, 3]))
    assert first["x"].shape == (300, 3) and second["x"].shape == (5, 3)
    assert labels is not None and labels[299] == 299


def test_pairs_of_one_sample_and_its_label_are_taken() -> None:
    pairs = [(np.full(3, i, np.float32), i % 2) for i in range(4)]
    read = list(chunks(pairs, _model(x=["n", 3])))
    assert [feeds["x"].shape for feeds, _ in read] == [(1, 3)] * 4
    assert [int(labels[0]) for _, labels in read if labels is not None] == [0, 1, 0, 1]
    assert len(load_samples(pairs, _model(x=["n", 3]))) == 4


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"x": np.zeros((2, 5))}, "do not fit"),
        ({"x": np.full((2, 3), np.nan)}, "NaN"),
        ({"z": np.zeros((2, 3)), "w": np.zeros((2, 3))}, "no array for input"),
        ([], "no sample"),
    ],
)
def test_what_does_not_fit_is_said(data: object, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        load_samples(data, _model(x=["n", 3]))
    assert caught.value.where and caught.value.hint


def test_a_file_that_is_no_array_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("not an archive")
    with pytest.raises(UsageError, match="cannot be read"):
        load_samples(tmp_path / "x.npz", _model(x=["n", 3]))
    with pytest.raises(UsageError, match="cannot be read"):
        load_samples(tmp_path / "absent.npz", _model(x=["n", 3]))


def _folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat/a.png", "dog/b.jpg"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def test_a_folder_of_pictures_is_cut_and_normalised_as_stated(tmp_path: Path) -> None:
    model = _model(x=["n", 3, 32, 32])
    (first, second) = load_samples(_folder(tmp_path), model, normalize="-1..1")
    assert first["x"].shape == second["x"].shape == (1, 3, 32, 32)
    assert -1 <= first["x"].min() < -0.5 and 0.5 < first["x"].max() <= 1
    (counted, _) = load_samples(tmp_path, model, normalize="0..255")
    np.testing.assert_allclose((counted["x"] / 255) * 2 - 1, first["x"], atol=1e-5)
    grey = load_samples(tmp_path, _model(x=["n", "h", "w", 1]), normalize="0..1")
    assert grey[0]["x"].shape == (1, 40, 60, 1)


def test_folders_of_classes_give_labels(tmp_path: Path) -> None:
    found = chunks(_folder(tmp_path), _model(x=["n", 3, 32, 32]), "imagenet")
    assert [int(labels[0]) for _, labels in found if labels is not None] == [0, 1]


def test_pictures_without_a_stated_normalisation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="how to normalise pictures is not given"):
        load_samples(_folder(tmp_path), _model(x=["n", 3, 32, 32]))
    with pytest.raises(UsageError, match="takes no pictures"):
        load_samples(tmp_path, _model(x=["n", 8]), normalize="0..1")
