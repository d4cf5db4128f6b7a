"""The classical kernels: what each of them is for, on pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from fastconv import functional as F
from fastconv import kernels

ROWS, COLUMNS = np.indices((9, 11)).astype(np.float64)
INNER = (slice(2, -2), slice(2, -2))
ALL = {
    "identity": kernels.identity,
    **{f"edge {form}": lambda *a, form=form, **k: kernels.edge(form, *a, **k) for form in (1, 2, 3)},
    "sharpen": kernels.sharpen,
    "box": lambda *a, **k: kernels.box_blur(3, *a, **k),
    "gaussian 3": lambda *a, **k: kernels.gaussian_blur(3, *a, **k),
    "gaussian 5": lambda *a, **k: kernels.gaussian_blur(5, *a, **k),
    "unsharp": kernels.unsharp_mask,
    **{f"sobel {axis}": lambda *a, axis=axis, **k: kernels.sobel(axis, *a, **k) for axis in "xy"},
}
SUMS = {"edge 1": 0, "edge 2": 0, "edge 3": 0, "sobel x": 0, "sobel y": 0}


def _on(image, kernel):
    return kernels.apply(image, kernel)[INNER]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_depthwise_and_sum_to_one_or_zero(name, channels, dtype):
    weight = ALL[name](channels, dtype)
    size = 5 if name in ("gaussian 5", "unsharp") else 3
    assert weight.shape == (channels, 1, size, size)
    assert weight.dtype == dtype
    np.testing.assert_allclose(weight.sum((1, 2, 3)), SUMS.get(name, 1), atol=1e-6)
    images = np.random.default_rng(0).random((2, channels, 8, 7)).astype(dtype)
    y = F.conv2d(images, weight, padding="same", groups=channels)
    assert y.shape == images.shape


def test_identity_changes_nothing():
    image = np.random.default_rng(0).random((9, 11))
    np.testing.assert_array_equal(kernels.apply(image, kernels.identity(dtype=np.float64)), image)


def test_sobel_is_eight_times_the_slope():
    slope = 3 * COLUMNS - 2 * ROWS
    np.testing.assert_array_equal(_on(slope, kernels.sobel("x", dtype=np.float64)), 24)
    np.testing.assert_array_equal(_on(slope, kernels.sobel("y", dtype=np.float64)), -16)


def test_edges_are_second_derivatives():
    """On polynomials of the second degree, whose second derivatives are constant; straight slopes give nothing."""
    forms = [kernels.edge(form, dtype=np.float64) for form in (1, 2, 3)]
    for form in forms:
        np.testing.assert_allclose(_on(5 + COLUMNS - 3 * ROWS, form), 0, atol=1e-12)
    product, squares = ROWS * COLUMNS, COLUMNS**2 + 2 * ROWS**2
    np.testing.assert_allclose(_on(product, forms[0]), 4, atol=1e-12)
    np.testing.assert_allclose(_on(squares, forms[0]), 0, atol=1e-12)
    np.testing.assert_allclose(_on(squares, forms[1]), 2 + 4, atol=1e-12)
    np.testing.assert_allclose(_on(squares, forms[2]), -3 * (2 + 4), atol=1e-12)


def test_blurs_are_means_with_their_variance():
    point = np.zeros((9, 9))
    point[4, 4] = 1
    rows = np.arange(9) - 4
    for weight, variance in (
        (kernels.box_blur(3, dtype=np.float64), 2 / 3),
        (kernels.box_blur(5, dtype=np.float64), 2),
        (kernels.gaussian_blur(3, dtype=np.float64), 1 / 2),
        (kernels.gaussian_blur(5, dtype=np.float64), 1),
    ):
        spread = kernels.apply(point, weight)
        assert spread.min() >= 0
        assert spread.sum() == pytest.approx(1)
        for axis in (0, 1):
            assert (spread.sum(axis) * rows**2).sum() == pytest.approx(variance)
    box = kernels.box_blur(3, dtype=np.float64)
    np.testing.assert_allclose(box, 1 / 9)


def test_sharpeners_add_what_is_lost_by_blurring():
    image = np.random.default_rng(0).random((12, 13))
    blurred = kernels.apply(image, kernels.gaussian_blur(5, dtype=np.float64))
    unsharp = kernels.apply(image, kernels.unsharp_mask(dtype=np.float64))
    np.testing.assert_allclose(unsharp, image + (image - blurred), atol=1e-12)
    laplacian = kernels.apply(image, kernels.edge(2, dtype=np.float64))
    np.testing.assert_allclose(kernels.apply(image, kernels.sharpen(dtype=np.float64)), image - laplacian, atol=1e-12)
    published = [[1, 4, 6, 4, 1], [4, 16, 24, 16, 4], [6, 24, -476, 24, 6], [4, 16, 24, 16, 4], [1, 4, 6, 4, 1]]
    np.testing.assert_array_equal(256 * kernels.unsharp_mask()[0, 0], -np.array(published))


def test_colour_pictures_and_borders():
    picture = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    y = kernels.apply(picture, kernels.gaussian_blur(5))
    assert y.shape == picture.shape
    assert y.dtype == np.float32
    for channel in range(3):
        alone = kernels.apply(picture[:, :, channel], kernels.gaussian_blur(5))
        np.testing.assert_allclose(y[:, :, channel], alone, rtol=1e-6)
    np.testing.assert_allclose(kernels.apply(np.full((4, 4), 7), kernels.box_blur(5)), 7, rtol=1e-6)


def test_bad_arguments():
    for message, call in (
        ("form: expected 1, 2 or 3, got 4", lambda: kernels.edge(4)),
        ("size: expected 3 or 5, got 7", lambda: kernels.gaussian_blur(7)),
        ("size: got 0, expected at least 1", lambda: kernels.box_blur(0)),
        ("channels: got 0, expected at least 1", lambda: kernels.identity(0)),
        ("axis: expected 'x' or 'y', got 'z'", lambda: kernels.sobel("z")),
        (
            r"image: expected shape \(H, W\) or \(H, W, C\), got \(3,\)",
            lambda: kernels.apply([1, 2, 3], kernels.sharpen()),
        ),
        (
            r"weight: expected shape .* got \(2, 1, 3, 3\)",
            lambda: kernels.apply(np.ones((4, 4, 3)), kernels.sharpen(2)),
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
