"""Unpooling, forward and backward, against its definition and PyTorch, and the layer."""

import fastconv.functional as F
import numpy as np
import problems
import pytest
import reference_pools
import tolerance
from fastconv import nn
from fastconv._cli.calls import unpooled_size
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st

both_formats = pytest.mark.parametrize("data_format", problems.FORMATS)
both_dtypes = pytest.mark.parametrize("dtype", problems.DTYPES)


@both_dtypes
@settings(max_examples=50)
@given(data=st.data())
def test_random_problems(isa, dtype, data):
    """Any sizes, windows, pads, formats and views of values and indices; places may be named more than once."""
    source = problems.Drawn(data)
    problem = problems.unpool_problem(source)
    rng, axes, size = source.rng, problem.spatial, unpooled_size(problem)
    data_format, view, other = (source.choice(c) for c in (problems.FORMATS, problems.VIEWS, problems.VIEWS))
    x = problems.as_view(problems.to_format(problems.normal(rng, problem.x_shape, dtype), data_format), view)
    places = rng.integers(0, int(np.prod(size)), problem.x_shape)
    indices = problems.as_view(problems.to_format(places, data_format), other)
    places = np.array(problems.to_first(indices, data_format))
    geometry = {"stride": problem.stride, "padding": problem.padding, "data_format": data_format}
    y = getattr(F, f"max_unpool{axes}d")(x, indices, problem.kernel, **geometry)
    wanted = reference_pools.max_unpool(problems.to_first(x, data_format), places, size)
    np.testing.assert_array_equal(problems.to_first(y, data_format), wanted)
    g = problems.as_view(problems.to_format(problems.normal(rng, wanted.shape, dtype), data_format), view)
    result = getattr(F, f"max_unpool{axes}d_backward")(g, indices, data_format=data_format)
    wanted = reference_pools.max_unpool_backward(problems.to_first(g, data_format), places)
    np.testing.assert_array_equal(problems.to_first(result, data_format), wanted)
    assert y.dtype == result.dtype == dtype
    assert result.shape == x.shape


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_as_pytorch(isa, axes, data_format):
    """A pool and its inverse, with every output size that PyTorch takes or refuses."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    first = np.random.default_rng(0).standard_normal((2, 5, 9, 7, 8)[: axes + 2])
    refused = 0
    for kernel, stride, padding in ((2, None, 0), (3, 2, 1), (2, 1, 0), (2, 3, 0), (3, 3, 1)):
        y, places = getattr(torch.nn.functional, f"max_pool{axes}d")(
            torch.tensor(first), kernel, stride, padding, return_indices=True
        )
        theirs, ours = getattr(torch.nn.functional, f"max_unpool{axes}d"), getattr(F, f"max_unpool{axes}d")
        values, indices = (problems.to_format(t.numpy(), data_format) for t in (y, places))
        sizes = [None, first.shape[2:], first.shape, *((s,) * axes for s in range(4, 12)), (1,) * (axes + 1)]
        for size in sizes:
            own = size
            if size == first.shape and data_format == "channels_last":
                own = (size[0], *size[2:], size[1])
            try:
                wanted = theirs(y, places, kernel, stride, padding, size)
            except (ValueError, RuntimeError):
                refused += 1
                with pytest.raises(ValueError, match=r"output_size|indices"):
                    ours(values, indices, kernel, stride, padding, own, data_format=data_format)
                continue
            result = ours(values, indices, kernel, stride, padding, own, data_format=data_format)
            np.testing.assert_array_equal(problems.to_first(result, data_format), wanted.numpy())
    assert refused


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_unbatched_and_empty(isa, axes, data_format):
    """``(C, *spatial)`` is one sample; no samples give empty results."""
    x = problems.to_format(np.random.default_rng(2).standard_normal((2, 5, *(6,) * axes)), data_format)
    layout = {"data_format": data_format}
    forward, backward = getattr(F, f"max_unpool{axes}d"), getattr(F, f"max_unpool{axes}d_backward")
    y, indices = getattr(F, f"max_pool{axes}d")(x, 2, return_indices=True, **layout)
    back = forward(y, indices, 2, **layout)
    assert back.shape == x.shape
    tolerance.assert_same_bits(forward(y[1], indices[1], 2, **layout), back[1], "unbatched")
    whole = backward(x, indices, **layout)
    tolerance.assert_same_bits(backward(x[1], indices[1], **layout), whole[1], "unbatched gradient")
    assert forward(y[:0], indices[:0], 2, **layout).shape == (0, *x.shape[1:])
    assert backward(x[:0], indices[:0], **layout).shape == (0, *y.shape[1:])


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_layer(axes, data_format):
    """A pool that returns indices and its unpooling, their gradients and their refusals."""
    shape = (2, 3, *(6,) * axes) if data_format == "channels_first" else (2, *(6,) * axes, 3)
    x = np.random.default_rng(3).permutation(int(np.prod(shape))).reshape(shape) * 0.1
    for suffix in ("", f"{axes}d"):
        pool = getattr(nn, f"MaxPool{suffix}")(2, return_indices=True, data_format=data_format)
        unpool = getattr(nn, f"MaxUnpool{suffix}")(2, data_format=data_format)
        y, indices = pool(x)
        back = unpool(y, indices)
        assert back.shape == x.shape
        np.testing.assert_array_equal(np.sort(back[back != 0]), np.sort(y[y != 0]))
        assert gradcheck(lambda a, u=unpool, i=indices: (u(a, i), u.backward), y)
        np.testing.assert_array_equal(unpool(y, indices, shape), back)
        with pytest.raises(TypeError, match="indices"):
            unpool(y)
    pool = nn.AdaptiveMaxPool(3, return_indices=True, data_format=data_format)
    y, indices = pool(x)
    assert y.shape == indices.shape
    np.testing.assert_allclose(pool.backward(y).sum(), y.sum())


def test_torch_tensors():
    """Tensors in give a tensor out."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.randn(2, 8, 6, 6)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(y, indices, 2)
    assert torch.equal(back, torch.nn.functional.max_unpool2d(y, indices, 2))
    assert torch.equal(F.max_unpool2d_backward(back, indices), y)
