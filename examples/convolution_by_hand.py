"""A convolution is a sum: written out by hand, computed by fastconv, and as a matrix."""

from __future__ import annotations

import fastconv.functional as F
import numpy as np
from example import options
from fastconv.analysis import conv_matrix


def by_hand(x, weight, stride, padding):
    """Slide the kernel over the padded input; at each place multiply and add."""
    channels, height, width = x.shape
    outputs, _, k, _ = weight.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding))
    padded[:, padding : padding + height, padding : padding + width] = x
    rows, columns = (height + 2 * padding - k) // stride + 1, (width + 2 * padding - k) // stride + 1
    y = np.zeros((outputs, rows, columns))
    for o in range(outputs):
        for i in range(rows):
            for j in range(columns):
                for c in range(channels):
                    for u in range(k):
                        for v in range(k):
                            y[o, i, j] += weight[o, c, u, v] * padded[c, i * stride + u, j * stride + v]
    return y


options(__doc__)
rng = np.random.default_rng(0)
x = rng.standard_normal((2, 7, 6))
weight = rng.standard_normal((3, 2, 3, 3))

y = F.conv2d(x[None], weight, stride=2, padding=1)[0]
print("input", x.shape, " weight", weight.shape, " stride 2, padding 1  ->  output", y.shape)
print("largest difference from the sum by hand:", np.abs(y - by_hand(x, weight, 2, 1)).max())

# The same as a matrix: one row for each output, an entry for each tap.
matrix = conv_matrix(weight, x.shape, stride=2, padding=1)
share = 100 * matrix.nnz / np.prod(matrix.shape)
print(f"as a matrix: {matrix.shape[0]} x {matrix.shape[1]}, of which {share:.0f} % is not zero")
print("largest difference from matrix times vector:", np.abs(matrix @ x.ravel() - y.ravel()).max())

# Its transpose takes gradients back: that is the transposed convolution.
grad = rng.standard_normal(y.shape)
back = F.conv2d_backward(grad[None], x[None], weight, stride=2, padding=1).input[0]
print("largest difference of the gradient from the transpose:", np.abs(matrix.T @ grad.ravel() - back.ravel()).max())
