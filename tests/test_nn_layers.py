"""Layers and losses against PyTorch's (forward, gradients, state) and against central differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastconv import nn, optim
from fastconv.testing import gradcheck
from layer_cases import CASES

each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
each_format = pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])


def _to_format(array, data_format):
    return np.moveaxis(array, 1, -1) if data_format == "channels_last" and array.ndim > 2 else array


def _from_format(array, data_format):
    return np.moveaxis(array, -1, 1) if data_format == "channels_last" and array.ndim > 2 else array


def _assert_near(actual, expected, dtype, what):
    """Sums here have at most a few hundred terms of size about 1: allow that many roundings of the largest value."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, what
    assert actual.dtype == dtype, what
    bound = 64 * np.finfo(dtype).eps * max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound, err_msg=what)


def _same_network(case, dtype, data_format, seed=0):
    """Return PyTorch's layer with random state, and ours with that state loaded."""
    torch.manual_seed(seed)
    theirs = case.theirs().to(torch.float64 if dtype == np.float64 else torch.float32)
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.randn_like(value) * 0.5)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    ours = case.ours(dtype=dtype, data_format=data_format)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@each_case
@each_format
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
def test_layer_agrees_with_pytorch(case, dtype, data_format, training):
    ours, theirs = _same_network(case, dtype, data_format)
    ours.train() if training else ours.eval(keep_for_backward=True)
    theirs.train(training)
    rng = np.random.default_rng(1)
    x = rng.standard_normal(case.shape).astype(dtype)
    t = torch.from_numpy(x).requires_grad_()

    # Twice, so that running statistics have moved and gradients are sums of two.
    for _ in range(2):
        expected = theirs(t)
        y = ours(_to_format(x, data_format))
        _assert_near(_from_format(y, data_format), expected.detach(), dtype, "output")
        grad = rng.standard_normal(expected.shape).astype(dtype)
        (expected_grad,) = torch.autograd.grad(expected, t, torch.from_numpy(grad), retain_graph=True)
        expected.backward(torch.from_numpy(grad))
        grad_input = ours.backward(_to_format(grad, data_format))
        _assert_near(_from_format(grad_input, data_format), expected_grad, dtype, "gradient of the input")
    parameters = dict(ours.named_parameters())
    assert list(parameters) == [name for name, _ in theirs.named_parameters()]
    for name, parameter in theirs.named_parameters():
        _assert_near(parameters[name].grad, parameter.grad, dtype, f"gradient of {name}")
    buffers = dict(ours.named_buffers())
    for name, buffer in theirs.named_buffers():
        if buffer.is_floating_point():
            _assert_near(buffers[name], buffer, dtype, name)
        else:
            assert buffers[name] == buffer.item(), name


@each_case
def test_gradients_of_parameters_alone(case):
    """backward_parameters() does to the parameters, bit for bit, what backward() does."""
    x = np.random.default_rng(0).standard_normal(case.shape)
    grads = []
    for name in ("backward", "backward_parameters"):
        layer = _same_network(case, np.float64, "channels_first")[0]
        y = layer(x)
        result = getattr(layer, name)(np.random.default_rng(1).standard_normal(y.shape))
        assert (result is None) == (name == "backward_parameters")
        grads.append([parameter.grad for parameter in layer.parameters()])
    for one, other in zip(*grads, strict=True):
        np.testing.assert_array_equal(one, other)


@each_case
def test_state_goes_both_ways(case):
    """Names, order, shapes and values of the state are PyTorch's, and PyTorch takes ours strictly."""
    ours, theirs = _same_network(case, np.float32, "channels_first")
    state = ours.state_dict()
    expected = theirs.state_dict()
    assert list(state) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value.numpy())
    other = case.theirs()
    other.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}, strict=True)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name])


GRADCHECK_SHAPES = {3: (2, 4, 6), 4: (2, 4, 5, 5), 5: (2, 4, 4, 5, 4), 2: (5, 4)}


@each_case
def test_gradcheck(case):
    if case.name.startswith(("ConvTranspose3d", "Conv3d")) and "groups': 4" in case.name:
        shape = (1, 4, 3, 4, 3)
    else:
        shape = GRADCHECK_SHAPES[len(case.shape)]
    # Distinct values far apart: pools have no ties and ReLU no kinks within eps.
    rng = np.random.default_rng(2)
    x = (rng.permutation(int(np.prod(shape))).reshape(shape) - np.prod(shape) / 2 + 0.3) * 0.05
    assert gradcheck(case.ours(data_format="channels_first"), x, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "sigmoid", "tanh"])
@each_format
def test_conv_with_activation_is_conv_then_activation(activation, data_format):
    layer = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
    fused = nn.Conv2d(3, 5, 3, padding=1, activation=activation, data_format=data_format, dtype=np.float64)
    plain = nn.Conv2d(3, 5, 3, padding=1, data_format=data_format, dtype=np.float64)
    plain.load_state_dict(fused.state_dict())
    two = nn.Sequential(plain, layer[activation]())
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 3, 6, 7) if data_format == "channels_first" else (2, 6, 7, 3))
    y, expected = fused(x), two(x)
    _assert_near(y, expected, np.float64, "output")
    grad = rng.standard_normal(y.shape)
    _assert_near(fused.backward(grad), two.backward(grad), np.float64, "gradient of the input")
    for ours, theirs in zip(fused.parameters(), two.parameters(), strict=True):
        _assert_near(ours.grad, theirs.grad, np.float64, "gradient of a parameter")
    _assert_near(fused.eval()(x), expected, np.float64, "output in evaluation")
    assert gradcheck(fused, x)


@pytest.mark.parametrize("padding", ["same", "valid", ((1, 2), (0, 3))], ids=str)
def test_conv_paddings(padding):
    layer = nn.Conv2d(2, 3, (3, 4), padding=padding, dtype=np.float64)
    x = np.random.default_rng(4).standard_normal((2, 2, 6, 7))
    pads = {"valid": (0, 0, 0, 0), "same": (1, 2, 1, 1)}.get(padding, (0, 3, 1, 2))
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.from_numpy(x), pads),
        torch.from_numpy(layer.weight.data),
        torch.from_numpy(layer.bias.data),
    )
    _assert_near(layer(x), expected, np.float64, "output")
    assert gradcheck(layer, x)


def test_unbatched_inputs():
    x = np.random.default_rng(5).standard_normal((2, 6, 7)).astype(np.float32)
    for layer in (nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(2, 3, 3), nn.MaxPool2d(2), nn.AvgPool((2, 2))):
        np.testing.assert_array_equal(layer(x), layer(x[None])[0])
        y = layer(x)
        assert layer.backward(np.ones_like(y)).shape == x.shape


# ---- dropout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@each_format
def test_dropout(n, data_format):
    shape = (64, 32, 3, 4, 2)[: n + 2] if n else (500, 40)
    make = getattr(nn, f"Dropout{n}d" if n else "Dropout")
    layer = make(0.3, data_format=data_format, rng=np.random.default_rng(6))
    x = _to_format(np.random.default_rng(7).uniform(1, 2, shape).astype(np.float32), data_format)
    y = layer(x)
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / np.float32(0.7), rtol=1e-6)
    if n:
        flat = _from_format(kept, data_format).reshape(*shape[:2], -1)
        assert (flat.all(2) | ~flat.any(2)).all(), "a channel is dropped whole or not at all"
        kept_share, count = flat[:, :, 0].mean(), flat[:, :, 0].size
    else:
        kept_share, count = kept.mean(), kept.size
    assert abs(kept_share - 0.7) < 5 * np.sqrt(0.21 / count)
    grad = np.random.default_rng(8).uniform(1, 2, x.shape).astype(np.float32)
    np.testing.assert_allclose(layer.backward(grad), np.where(kept, grad / np.float32(0.7), 0), rtol=1e-6)
    assert not np.array_equal(layer(x) != 0, kept), "each forward has a mask of its own"
    assert layer.eval()(x) is x


def test_dropout_is_reproducible():
    x = np.ones((100, 10), np.float32)
    nn.init.seed(11)
    first = nn.Dropout(0.5)(x)
    nn.init.seed(11)
    layer = nn.Dropout(0.5)
    np.testing.assert_array_equal(layer(x), first)
    assert gradcheck(layer, np.random.default_rng(0).standard_normal((6, 5)))
    layer.eval(keep_for_backward=True)(x)
    assert np.array_equal(layer.backward(x), x)


# ---- losses --------------------------------------------------------------------------------------------------------

LOSSES = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smooth": {"label_smoothing": 0.1},
    "weight": {"weight": [0.5, 1.0, 2.0, 0.0, 1.5]},
    "ignore": {"ignore_index": 2},
    "all": {"weight": [0.5, 1.0, 2.0, 0.3, 1.5], "ignore_index": 1, "label_smoothing": 0.2, "reduction": "sum"},
}


@pytest.mark.parametrize("keywords", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("shape", [(6, 5), (3, 5, 4, 2)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_loss(keywords, shape, dtype):
    rng = np.random.default_rng(9)
    y = rng.standard_normal(shape).astype(dtype)
    target = rng.integers(0, 5, (shape[0], *shape[2:]))
    theirs = dict(keywords)
    if "weight" in theirs:
        theirs["weight"] = torch.tensor(theirs["weight"], dtype=torch.from_numpy(y).dtype)
    _check_loss(nn.CrossEntropyLoss(**keywords), torch.nn.CrossEntropyLoss(**theirs), y, target)


def test_cross_entropy_loss_of_probabilities():
    rng = np.random.default_rng(10)
    y, target = rng.standard_normal((6, 5)), rng.dirichlet(np.ones(5), 6)
    _check_loss(nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss(), y, target)


def test_cross_entropy_loss_channels_last():
    rng = np.random.default_rng(10)
    y, target = rng.standard_normal((2, 3, 4, 5)), rng.integers(0, 5, (2, 3, 4))
    last, first = nn.CrossEntropyLoss(data_format="NHWC"), nn.CrossEntropyLoss()
    assert last(y, target) == first(np.moveaxis(y, -1, 1), target)
    np.testing.assert_array_equal(last.backward(), np.moveaxis(first.backward(), 1, -1))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss(reduction):
    rng = np.random.default_rng(11)
    y, target = rng.standard_normal((2, 4, 3))
    _check_loss(nn.MSELoss(reduction), torch.nn.MSELoss(reduction=reduction), y, target)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bce_with_logits_loss(reduction, weighted, dtype):
    rng = np.random.default_rng(12)
    y, target = rng.standard_normal((6, 3)).astype(dtype), rng.uniform(0, 1, (6, 3)).astype(dtype)
    weights = {"weight": [0.5, 1.0, 2.0], "pos_weight": [3.0, 1.0, 0.5]} if weighted else {}
    theirs = {name: torch.tensor(value, dtype=torch.from_numpy(y).dtype) for name, value in weights.items()}
    ours = nn.BCEWithLogitsLoss(reduction=reduction, **weights)
    _check_loss(ours, torch.nn.BCEWithLogitsLoss(reduction=reduction, **theirs), y, target)


def test_step_passes_no_gradient():
    x = np.random.default_rng(13).standard_normal((3, 4)).astype(np.float32)
    layer = nn.Step()
    np.testing.assert_array_equal(layer(x), x > 0)
    grad = layer.backward(np.ones_like(x))
    assert grad.shape == x.shape
    assert grad.dtype == x.dtype
    assert not grad.any()
    with pytest.raises(ValueError, match=r"grad_output: got shape \(3,\)"):
        layer.backward(np.ones(3, np.float32))


# ---- norms ---------------------------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("n", [1, 2, 3])
def test_instance_norm_of_one_sample(n, data_format):
    """Without the first axis, as PyTorch's."""
    x = np.random.default_rng(14).standard_normal((3, 4, *(5, 6, 2)[:n]))
    inputs = _to_format(x, data_format)
    layer = getattr(nn, f"InstanceNorm{n}d")(4, affine=True, data_format=data_format, dtype=np.float64)
    whole, alone = layer(inputs), layer(inputs[1])
    np.testing.assert_array_equal(alone, whole[1])
    assert layer.backward(np.ones_like(alone)).shape == inputs[1].shape
    with pytest.raises(ValueError, match="expects"):
        layer(inputs[0, ..., 0])


@pytest.mark.parametrize(
    "make", [lambda: nn.BatchNorm2d(4, bias=False), lambda: nn.GroupNorm(2, 4, bias=False)], ids=["batch", "group"]
)
def test_norm_with_scale_alone(make):
    layer = make()
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    y = layer(np.random.default_rng(15).standard_normal((2, 4, 3, 3)).astype(np.float32))
    layer.backward(np.ones_like(y))
    assert layer.weight.grad.shape == (4,)


def test_norms_refuse_what_does_not_fit():
    x = np.zeros((2, 4, 3, 3), np.float32)
    for make, match in (
        (lambda: nn.GroupNorm(3, 4), "num_groups: got 3, expected a divisor"),
        (lambda: nn.GroupNorm(1, 5)(x), "5 channels"),
        (lambda: nn.LayerNorm(())(x), "normalized_shape"),
        (lambda: nn.LayerNorm(4)(x), "normalized_shape"),
        (lambda: nn.SwitchNorm1d(4)(x), "SwitchNorm1d.*3 axes"),
        (lambda: nn.InstanceNorm2d(3)(x), "InstanceNorm2d.*3 channels"),
        (lambda: nn.BatchNorm1d(4)(np.zeros((1, 4), np.float32)), "more than 1 value per channel"),
    ):
        with pytest.raises(ValueError, match=match):
            make()


NORMS = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels, **kw: nn.InstanceNorm2d(channels, affine=True, **kw),
    "group": lambda channels, **kw: nn.GroupNorm(4, channels, **kw),
    "layer": lambda channels, data_format: nn.LayerNorm(
        (channels, 8, 8) if data_format == "channels_first" else (8, 8, channels)
    ),
    "switch": nn.SwitchNorm2d,
}


@each_format
@pytest.mark.parametrize("name", NORMS)
def test_a_residual_network_with_every_norm_learns(name, data_format):
    """Two branches, each with the norm; the loss falls to less than half."""
    nn.init.seed(0)
    options = {"data_format": data_format}

    def norm(channels):
        return NORMS[name](channels, **options)

    def branch(kernel):
        conv = nn.Conv2d(8, 8, kernel, padding="same", **options)
        return nn.Sequential(conv, norm(8), nn.ReLU())

    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, **options),
        norm(8),
        nn.Residual(branch(3), branch(1)),
        nn.Residual(nn.Sequential(branch(3), branch(3))),
        nn.GlobalAvgPool(**options),
        nn.Linear(8, 3),
    )
    rng = np.random.default_rng(16)
    target = rng.integers(0, 3, 48)
    x = rng.standard_normal((48, 1, 8, 8)).astype(np.float32) * 0.5
    x[target == 1, :, ::2] += 1
    x[target == 2, :, :, ::2] += 1
    x = _to_format(x, data_format)
    loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(network.parameters(), lr=0.03)
    losses = []
    for _ in range(40):
        losses.append(loss(network(x), target))
        network.zero_grad()
        network.backward(loss.backward())
        optimizer.step()
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0], losses


# ---- losses, checked -----------------------------------------------------------------------------------------------


def _check_loss(ours, theirs, y, target):
    with pytest.raises(RuntimeError, match="there is no loss yet"):
        ours.backward()
    t = torch.from_numpy(y).requires_grad_()
    expected = theirs(t, torch.from_numpy(target))
    value = ours(y, target)
    assert isinstance(value, float) or ours.reduction == "none"
    np.testing.assert_allclose(value, expected.detach(), rtol=100 * np.finfo(y.dtype).eps, atol=np.finfo(y.dtype).eps)
    expected.sum().backward()
    grad = ours.backward()
    _assert_near(grad, t.grad, y.dtype, "gradient")
    _assert_near(ours.backward(3.0), 3 * t.grad, y.dtype, "scaled gradient")


def test_unknown_reduction():
    with pytest.raises(ValueError, match="reduction: expected one of"):
        nn.MSELoss("median")


# ---- reshaping -----------------------------------------------------------------------------------------------------


def test_flatten_axes():
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    layer = nn.Flatten(2, 3)
    np.testing.assert_array_equal(layer(x), x.reshape(2, 3, 20))
    np.testing.assert_array_equal(layer.backward(x.reshape(2, 3, 20)), x)
    assert nn.Flatten()(np.zeros((0, 3, 4))).shape == (0, 12)
    with pytest.raises(ValueError, match=r"x: Flatten\(start_dim=3, end_dim=1\)"):
        nn.Flatten(3, 1)(x)


def test_flatten_gives_linear_the_same_features_in_both_formats():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    np.testing.assert_array_equal(nn.Flatten(data_format="NHWC")(x.transpose(0, 2, 3, 1)), nn.Flatten()(x))


@each_format
def test_rescaling(data_format):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([2.0, 3.0, 4.0])
    layer = nn.Rescaling(1 / std, -mean / std, data_format=data_format)
    expected = (x - mean[:, None, None]) / std[:, None, None]
    inputs = _to_format(x, data_format)
    np.testing.assert_allclose(_from_format(layer(inputs), data_format), expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(layer, inputs)
    pixels = nn.Rescaling(1 / 255)(np.array([[0, 51, 255]], np.uint8))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, [[0, 0.2, 1]], rtol=1e-6)
    with pytest.raises(ValueError, match="scale has 3 channels"):
        layer(np.zeros((2, 4, 4, 4)))
    with pytest.raises(ValueError, match="scale: expected a number or one for each channel"):
        nn.Rescaling(np.zeros((2, 2)))
