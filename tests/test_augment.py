"""Augmentation and preprocessing: each step does what its name says, by numbers, and one seed gives one result."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from fastconv import nn, optim, train
from fastconv.datasets import augment, preprocess

STEPS = {
    "affine": augment.affine(20, 0.2, 0.1, 0.1),
    "affine, replicate": augment.affine(20, 0.2, 0.1, 0.1, fill="replicate"),
    "rotate": augment.rotate(90),
    "scale": augment.scale(0.3),
    "shift": augment.shift(0.2),
    "crop": augment.crop(12, padding=2),
    "flip": augment.flip(),
    "flip y": augment.flip(axis="y"),
    "symmetry": augment.symmetry(),
    "contrast": augment.contrast(0.5),
    "brightness": augment.brightness(0.3),
    "blur": augment.blur(2),
    "channel_shuffle": augment.channel_shuffle(),
    "noise": augment.noise(0.1),
    "erase": augment.erase(),
    "glare": augment.glare(),
    "pattern": augment.pattern(),
    "rain": augment.rain(),
}
MIXES = {"mixup": augment.mixup(0.4, 5), "cutmix": augment.cutmix(1.0, 5)}


def _images(n=8, channels=3, size=12, dtype=np.float32):
    return np.random.default_rng(0).random((n, channels, size, size)).astype(dtype)


def _rng(seed=1):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_are_repeatable_and_leave_their_input_alone(step, dtype):
    images = _images(dtype=dtype)
    before = images.copy()
    one, same, other = step(images, _rng()), step(images, _rng()), step(images, _rng(2))
    np.testing.assert_array_equal(images, before)
    assert one.shape == images.shape
    assert one.dtype == dtype
    assert not np.shares_memory(one, images)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.isfinite(one).all()


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_mixes_are_repeatable(mix):
    images, labels = _images(), np.arange(8) % 5
    results = [mix(images, labels, _rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert not np.array_equal(results[0][0], results[2][0])
    np.testing.assert_allclose(results[0][1].sum(1), 1, rtol=1e-6)
    assert results[0][1].shape == (8, 5)
    again = mix(images, results[0][1], _rng())[1]
    np.testing.assert_allclose(again.sum(1), 1, rtol=1e-6, err_msg="targets may be probabilities already")


class Largest:
    """Draws the largest value of every interval."""

    def uniform(self, low, high, size=None):
        return high if size is None else np.full(size, high, float)


# ---- geometry ------------------------------------------------------------------------------------------------------


def test_nothing_asked_for_is_nothing_done():
    images = _images()
    np.testing.assert_allclose(augment.affine()(images, _rng()), images, atol=1e-6)
    np.testing.assert_array_equal(augment.flip(0.0)(images, _rng()), images)


def test_shift_moves_by_whole_pixels():
    images = _images(size=10)
    moved = augment.shift(0.2)(images, Largest())
    expected = np.zeros_like(images)
    expected[:, :, 2:, 2:] = images[:, :, :-2, :-2]
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    moved = augment.shift(0.2, fill="circular")(images, Largest())
    np.testing.assert_allclose(moved, np.roll(images, (2, 2), (2, 3)), atol=1e-5)


@pytest.mark.parametrize("size", [9, 10])
def test_a_quarter_turn_is_exact(size):
    images = _images(size=size)
    turned = augment.rotate(90)(images, Largest())
    # The border pixels lie half outside by rounding.
    np.testing.assert_allclose(turned[..., 1:-1, 1:-1], np.rot90(images, 1, (3, 2))[..., 1:-1, 1:-1], atol=1e-5)


def test_scale_enlarges_areas_by_its_square():
    images = np.zeros((1, 1, 41, 41))
    images[..., 16:25, 16:25] = 1
    larger = augment.scale(0.5)(images, Largest())
    assert larger.sum() == pytest.approx(81 * 1.5**2, rel=0.05)
    rows = np.arange(41) - 20
    assert (larger.sum(3) * rows).sum() == pytest.approx(0, abs=1e-9), "around the middle"


def test_crop_takes_windows_from_everywhere():
    images = np.arange(2.0 * 36).reshape(2, 1, 6, 6)
    cuts = [augment.crop(4)(images, _rng(seed)) for seed in range(60)]
    corners = {tuple(cut[:, 0, 0, 0].astype(int)) for cut in cuts}
    assert {corner[0] for corner in corners} == {6 * i + j for i in range(3) for j in range(3)}
    for cut in cuts:
        first = int(cut[0, 0, 0, 0])
        row, column = divmod(first, 6)
        np.testing.assert_array_equal(cut[0, 0], images[0, 0, row : row + 4, column : column + 4])
    with pytest.raises(ValueError, match="size: 7 is larger than the padded images, 6 x 6"):
        augment.crop(7)(images, _rng())


def test_flips_mirror_about_half_of_the_images():
    images = _images(200)
    for axis, number in (("x", 3), ("y", 2)):
        flipped = augment.flip(0.5, axis)(images, _rng())
        mirrored = np.array([np.array_equal(a, b) for a, b in zip(flipped, np.flip(images, number), strict=True)])
        kept = np.array([np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)])
        assert (mirrored ^ kept).all()
        assert 70 < mirrored.sum() < 130


def test_the_eight_symmetries():
    images = _images()
    eight = augment.symmetries(images)
    assert eight.shape == (8, *images.shape)
    np.testing.assert_array_equal(eight[0], images)
    assert len({each.tobytes() for each in eight}) == 8, "all different"
    turned = {each.tobytes() for each in np.ascontiguousarray(np.rot90(eight, 1, (-2, -1)))}
    assert turned == {each.tobytes() for each in eight}, "a group"
    drawn = augment.symmetry()(np.repeat(images[:1], 400, 0), _rng())
    counts = [sum(np.array_equal(each, of[0]) for each in drawn) for of in eight]
    assert sum(counts) == 400
    assert min(counts) > 25
    with pytest.raises(ValueError, match="images: expected square ones"):
        augment.symmetries(images[..., 1:])


# ---- colour --------------------------------------------------------------------------------------------------------


def test_contrast_and_brightness():
    images = _images(dtype=np.float64)
    stretched = augment.contrast(0.5)(images, Largest())
    mean = images.mean((1, 2, 3))
    np.testing.assert_allclose(stretched.mean((1, 2, 3)), mean, rtol=1e-12)
    np.testing.assert_allclose(stretched.std((1, 2, 3)), 1.5 * images.std((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(augment.brightness(0.25)(images, Largest()), images + 0.25, rtol=1e-12)


def test_blur_keeps_means_and_takes_detail():
    images = np.zeros((40, 2, 21, 21))
    images[..., 10, 10] = 1
    blurred = augment.blur(1.5, probability=1)(images, _rng())
    np.testing.assert_allclose(blurred.sum((2, 3)), 1, rtol=1e-3)
    rows = np.arange(21) - 10
    variances = (blurred.sum(3) * rows**2).sum(2)
    assert variances.max() == pytest.approx(1.5**2, rel=0.15)
    assert len(np.unique(variances[:, 0])) > 30, "each image by its own amount"


def test_channel_shuffle_permutes():
    images = _images(60)
    shuffled = augment.channel_shuffle(1)(images, _rng())
    orders = {
        tuple(int(np.flatnonzero((images[i] == channel).all((1, 2)))[0]) for channel in shuffled[i]) for i in range(60)
    }
    assert len(orders) == 6


def test_noise_has_the_deviation_that_is_drawn():
    images = np.zeros((300, 1, 40, 40))
    deviations = augment.noise(0.2)(images, _rng()).std((1, 2, 3))
    assert deviations.max() == pytest.approx(0.2, rel=0.1)
    assert deviations.mean() == pytest.approx(0.1, rel=0.1)


# ---- occlusion -----------------------------------------------------------------------------------------------------


def test_erased_rectangles_have_the_share_that_is_drawn():
    images = np.zeros((300, 2, 40, 30))
    erased = augment.erase((0.1, 0.2), probability=1, value=1.0)(images, _rng())
    shares = erased[:, 0].mean((1, 2))
    assert shares.min() > 0.08
    assert shares.max() < 0.22
    for image in erased[:20, 0]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert image.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "a rectangle"


@pytest.mark.parametrize("name", ["glare", "rain"])
def test_light_only_adds_and_stays_white(name):
    images = _images(60)
    step = getattr(augment, name)(probability=0.5)
    lit = step(images, _rng())
    assert (lit >= images - 1e-6).all()
    assert lit.max() <= 1 + 1e-6
    changed = (lit != images).any((1, 2, 3)).mean()
    assert 0.3 < changed < 0.7


def test_a_pattern_is_one_wave():
    flat = np.zeros((20, 1, 32, 32))
    waves = augment.pattern(0.3, probability=1)(flat, _rng())[:, 0]
    assert np.abs(waves).max() <= 0.3
    for wave in waves:
        spectrum = np.abs(np.fft.rfft2(wave - wave.mean(), s=(128, 128))) ** 2
        peak = np.unravel_index(spectrum.argmax(), spectrum.shape)
        near = np.roll(spectrum, (64 - peak[0]), 0)[52:77, max(peak[1] - 12, 0) : peak[1] + 13]
        assert near.sum() > 0.5 * spectrum.sum()


# ---- mixing --------------------------------------------------------------------------------------------------------


def test_mixup_mixes_targets_as_it_mixes_images():
    """On images that say which class they are, the mixed image is the mixed target."""
    labels = np.arange(5)
    images = np.eye(5)[labels][:, :, None, None] * np.ones((1, 1, 4, 4))
    mixed, targets = augment.mixup(1.0, 5)(images, labels, _rng())
    np.testing.assert_allclose(mixed.mean((2, 3)), targets, rtol=1e-12)
    assert ((targets > 0).sum(1) == 2).any()


def test_cutmix_targets_are_areas():
    labels = np.arange(5).repeat(20)
    images = np.eye(5)[labels][:, :, None, None] * np.ones((1, 1, 13, 11))
    mixed, targets = augment.cutmix(1.0, 5)(images, labels, _rng())
    np.testing.assert_allclose(mixed.mean((2, 3)), targets, atol=1e-12)
    assert set(np.unique(mixed)) == {0, 1}, "every pixel is of one image"
    assert ((targets > 0).sum(1) == 2).sum() > 40


# ---- together ------------------------------------------------------------------------------------------------------


def test_a_pipeline_trains_a_network():
    """Any number of workers gives the same weights."""
    weights = []
    steps = augment.pipeline(*STEPS.values(), mix=MIXES["mixup"])
    images, labels = _images(24), np.arange(24) % 5
    for workers in (0, 2):
        model = nn.Sequential(
            nn.Conv2d(3, 2, 3, rng=_rng()), nn.ReLU(), nn.GlobalAvgPool(), nn.Linear(2, 5, rng=_rng())
        )
        adam = optim.Adam(model.parameters())
        train.fit(
            model, images, labels, nn.CrossEntropyLoss(), adam, epochs=2, batch_size=8, augment=steps, workers=workers
        )
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_bad_arguments(monkeypatch):
    images = _images()
    for error, message, call in (
        (ValueError, "fill: expected one of", lambda: augment.affine(fill="white")),
        (ValueError, "scale: expected a part below 1, got 1", lambda: augment.scale(1)),
        (ValueError, "axis: expected 'x' or 'y', got 'z'", lambda: augment.flip(axis="z")),
        (ValueError, "classes: got 0, expected at least 1", lambda: augment.mixup(1, 0)),
        (ValueError, r"images: expected shape \(N, C, H, W\)", lambda: augment.pipeline()(images[0], None, _rng())),
        (TypeError, "images: expected floating-point", lambda: augment.pipeline()(images.astype("u1"), None, _rng())),
    ):
        with pytest.raises(error, match=message):
            call()
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[datasets\]'"):
        augment.rotate(10)(images, _rng())


# ---- preprocessing -------------------------------------------------------------------------------------------------


def test_to_network():
    grey = np.full((2, 4, 5), 51, np.uint8)
    assert preprocess.to_network(grey).shape == (2, 1, 4, 5)
    np.testing.assert_allclose(preprocess.to_network(grey), 0.2, rtol=1e-6)
    colour = np.random.default_rng(0).random((2, 4, 5, 3))
    np.testing.assert_array_equal(preprocess.to_network(colour), np.moveaxis(colour, -1, 1).astype("f"))
    np.testing.assert_array_equal(preprocess.to_network(colour, "channels_last"), colour.astype("f"))
    with pytest.raises(ValueError, match="images: expected shape"):
        preprocess.to_network(grey[0])


def test_standardize_uses_the_numbers_of_the_training_set():
    x = np.random.default_rng(0).normal([[[3.0]], [[-2.0]], [[0.0]]], [[[2.0]], [[0.5]], [[1.0]]], (50, 3, 4, 4))
    x[:, 2] = 7
    scaled = preprocess.Standardize().fit(x).transform(x)
    np.testing.assert_allclose(scaled.mean((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(scaled[:, :2].std((0, 2, 3)), 1, rtol=1e-12)
    other = preprocess.Standardize().fit(x).transform(x[:1] + 1)
    np.testing.assert_allclose(
        other - scaled[:1], 1 / preprocess.Standardize().fit(x).deviation.repeat(16).reshape(1, 3, 4, 4)
    )
    last = preprocess.Standardize(axis=-1).fit(np.moveaxis(x, 1, -1)).transform(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(np.moveaxis(last, -1, 1), scaled, atol=1e-12)
    with pytest.raises(RuntimeError, match="call fit first"):
        preprocess.Standardize().transform(x)


def test_whitening_decorrelates():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 12)) @ rng.standard_normal((12, 12)) + 5
    x = x.reshape(-1, 3, 2, 2)
    white = preprocess.Whitening(eps=0).fit(x)
    flat = white.transform(x).reshape(-1, 12)
    np.testing.assert_allclose(flat.T @ flat / 3000, np.eye(12), atol=1e-8)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(white.matrix, white.matrix.T, atol=1e-10, err_msg="the least change: no rotation")
    noisy = x.copy()
    noisy[:, 0, 0, 0] = 1e-6 * rng.standard_normal(3000)
    assert np.abs(preprocess.Whitening(1e-2).fit(noisy).transform(noisy)[:, 0, 0, 0]).max() < 1e-3, "noise stays small"
    assert preprocess.Whitening().fit(x).transform(x.astype("f")).dtype == np.float32
    with pytest.raises(RuntimeError, match="call fit first"):
        preprocess.Whitening().transform(x)
