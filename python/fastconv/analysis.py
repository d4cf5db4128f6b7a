"""What a network or a convolution is, in numbers.

`conv_matrix` needs SciPy: ``pip install 'fastconv[analysis]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._check import integer, output_sizes, pads, tuple_of_ints
from ._extras import require
from .nn.module import Module

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["conv_matrix", "count_macs", "count_parameters", "receptive_field"]


def receptive_field(module: Module, input_shape: Sequence[int]) -> tuple[int, ...]:
    """Return how many input positions one output sees, along each spatial axis.

    Parameters
    ----------
    module : Module
        A network or a part of one.
    input_shape : sequence of int
        Shape of the whole input, batch axis first.

    Returns
    -------
    tuple of int
        The field of an output far from the borders; the input's size where outputs see all of it. The statistics that a
        norm takes of its input do not count. `Module.summary` has the field of every layer.

    Raises
    ------
    ValueError
        If the shape is not one, or the field is not known: of a module of one's own that tells no geometry.
    """
    field = module.summary(input_shape).receptive_field
    if field is None:
        raise ValueError(f"module: the receptive field of {type(module).__name__} is not known")
    if not field.whole:
        return field.positions
    shape = tuple(input_shape)
    last = any(getattr(each, "data_format", None) == "channels_last" for each in module.modules())
    return shape[1:] if len(shape) == 2 else shape[1:-1] if last else shape[2:]


def count_parameters(module: Module) -> int:
    """Return how many numbers are trained; one that several layers share counts once."""
    return sum(parameter.size for parameter in module.parameters())


def count_macs(module: Module, input_shape: Sequence[int]) -> int:
    """Return the multiply-adds of one forward.

    Those of weights: norms, pools and activations count nothing.

    Parameters
    ----------
    module : Module
        A network.
    input_shape : sequence of int
        Shape of the whole input, batch axis first; twice the samples are twice the multiply-adds.
    """
    return module.summary(input_shape).multiply_adds


def conv_matrix(
    weight: NDArray[Any],
    input_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> scipy.sparse.csr_array:
    """Return a convolution as the sparse matrix that it is.

    ``conv_matrix(weight, x.shape, ...) @ x.ravel()`` is ``functional.conv2d(x, weight, ...).ravel()`` (or 1-D, or
    3-D), and its transpose the transposed convolution: the gradient of the input (Dumoulin and Visin, 2016).

    Parameters
    ----------
    weight : numpy.ndarray
        ``(C_out, C_in/groups, *kernel)`` with 1, 2 or 3 spatial axes.
    input_shape : sequence of int
        ``(C_in, *spatial)`` of one sample.
    stride, padding, dilation, groups
        As for `fastconv.functional.conv2d`.

    Returns
    -------
    scipy.sparse.csr_array
        ``(C_out * outputs, C_in * inputs)``, with an entry for each tap of each output that lies inside of the input.

    Raises
    ------
    ValueError
        If shapes and arguments do not belong together.
    fastconv._extras.MissingExtraError
        If SciPy is not installed (an ``ImportError``).

    Examples
    --------
    >>> import numpy as np
    >>> conv_matrix(np.array([[[1.0, 2.0]]]), (1, 4)).toarray()
    array([[1., 2., 0., 0.],
           [0., 1., 2., 0.],
           [0., 0., 1., 2.]])
    """
    sparse = require("scipy.sparse", purpose="a convolution as a matrix", extra="analysis")
    weight = np.asarray(weight)
    n = weight.ndim - 2
    if n not in (1, 2, 3):
        raise ValueError(f"weight: expected shape (C_out, C_in/groups, *kernel), got {weight.shape}")
    if len(input_shape) != n + 1:
        raise ValueError(f"input_shape: expected (C_in, *spatial) with {n} spatial axes, got {tuple(input_shape)}")
    groups = integer(groups, "groups", 1)
    channels, *sizes = tuple_of_ints(input_shape, n + 1, "input_shape", 1)
    outputs, inputs, *kernel = weight.shape
    if channels != inputs * groups or outputs % groups:
        raise ValueError(
            f"weight: shape {weight.shape} does not fit {channels} channels in groups={groups}: expected "
            f"(a multiple of {groups}, {channels} / {groups}, *kernel)"
        )
    steps, gaps = tuple_of_ints(stride, n, "stride", 1), tuple_of_ints(dilation, n, "dilation", 1)
    borders = pads(padding, n, sizes, kernel, steps, gaps)
    out_sizes = output_sizes(sizes, kernel, steps, gaps, borders)

    # For each output position (rows of these arrays) and each tap (columns), the input position under it.
    position, inside = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for size, out, k, s, d, (before, _) in zip(sizes, out_sizes, kernel, steps, gaps, borders, strict=True):
        along = np.arange(out)[:, None] * s + np.arange(k) * d - before
        fits = (along >= 0) & (along < size)
        position = _outer(np.add, position * size, along)
        inside = _outer(np.logical_and, inside, fits)
    out_index, tap = np.nonzero(inside)
    in_index = position[out_index, tap]

    # The same pattern for each pair of channels that the weight connects.
    taps = weight.reshape(outputs, inputs, -1)[:, :, tap]
    channel = np.arange(outputs)[:, None] // (outputs // groups) * inputs + np.arange(inputs)
    row = np.arange(outputs)[:, None, None] * position.shape[0] + out_index
    column = channel[:, :, None] * int(np.prod(sizes)) + in_index
    shape = (outputs * position.shape[0], channels * int(np.prod(sizes)))
    rows = np.broadcast_to(row, taps.shape).ravel()
    result: scipy.sparse.csr_array = sparse.coo_array((taps.ravel(), (rows, column.ravel())), shape).tocsr()
    return result


def _outer(combine: Any, table: NDArray[Any], along: NDArray[Any]) -> NDArray[Any]:
    """Return a table over positions and taps extended by one more, faster axis of both."""
    result: NDArray[Any] = combine(table[:, None, :, None], along[None, :, None, :])
    return result.reshape(table.shape[0] * along.shape[0], table.shape[1] * along.shape[1])
