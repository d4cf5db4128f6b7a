"""Convolution, norm and activation as one pass in evaluation: the bits of one after the other, and no surprises."""

import fastconv
import numpy as np
import pytest
from fastconv import _core, nn
from fastconv.nn._fusion import rectified_sum
from fastconv.nn._trace import observe

FORMATS = ("channels_first", "channels_last")

# What serves each: products, Winograd, tiles of channels with tails, rows, lanes, windows of other dimensions.
CONVOLUTIONS = {
    "pointwise": (lambda **o: nn.Conv2d(24, 37, 1, **o), (2, 24, 9, 11)),
    "pointwise_strided": (lambda **o: nn.Conv2d(24, 33, 1, 2, **o), (2, 24, 9, 11)),
    "winograd": (lambda **o: nn.Conv2d(64, 65, 3, padding=1, **o), (3, 64, 14, 13)),
    "direct": (lambda **o: nn.Conv2d(17, 31, 3, 2, padding=1, dilation=2, **o), (2, 17, 15, 14)),
    "grouped": (lambda **o: nn.Conv2d(12, 18, 3, padding=1, groups=3, **o), (2, 12, 10, 9)),
    "stem": (lambda **o: nn.Conv2d(3, 5, 7, 2, padding=3, **o), (2, 3, 31, 30)),
    "one_channel": (lambda **o: nn.Conv2d(1, 3, 5, **o), (2, 1, 28, 28)),
    "depthwise": (lambda **o: nn.Conv2d(35, 35, 3, padding=1, groups=35, **o), (2, 35, 12, 13)),
    "depthwise_strided": (lambda **o: nn.Conv2d(19, 38, 3, 2, padding=1, groups=19, **o), (2, 19, 12, 13)),
    "whole_window": (lambda **o: nn.Conv2d(6, 20, 5, **o), (3, 6, 5, 5)),
    "reflected": (lambda **o: nn.Conv2d(6, 9, 3, padding=1, padding_mode="reflect", **o), (2, 6, 8, 9)),
    "line": (lambda **o: nn.Conv1d(9, 17, 5, padding=2, **o), (2, 9, 50)),
    "volume": (lambda **o: nn.Conv3d(5, 18, 3, padding=1, **o), (1, 5, 6, 7, 8)),
    "separable": (lambda **o: nn.SeparableConv2d(18, 35, 3, padding="same", **o), (2, 18, 11, 10)),
}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def made(kind, data_format, dtype, bias=False, affine=True, activation=nn.ReLU):
    """A convolution, a norm with statistics of its own and an activation, in evaluation; and an input."""
    rng = np.random.default_rng(3)
    make, shape = CONVOLUTIONS[kind]
    convolution = make(bias=bias, data_format=data_format, dtype=dtype, rng=rng)
    layers = [convolution]
    if affine is not None:
        norm = NORMS[len(shape) - 2](convolution.out_channels, affine=affine, data_format=data_format, dtype=dtype)
        norm.running_mean[:] = rng.normal(size=norm.num_features)
        norm.running_var[:] = rng.uniform(0.1, 4, norm.num_features)
        if affine:
            norm.weight.data[:] = rng.normal(size=norm.num_features)
            norm.bias.data[:] = rng.normal(size=norm.num_features)
        layers.append(norm)
    if activation is not None:
        layers.append(activation(data_format=data_format))
    x = rng.standard_normal(shape).astype(dtype)
    if data_format == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return nn.Sequential(*layers).eval(), x


def one_by_one(net, x):
    for layer in net:
        x = layer(x)
    return x


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_bits_are_those_of_the_layers_one_after_the_other(isa, kind, data_format):
    """For every way through the engine, with and without each of the steps."""
    for dtype in (np.float32, np.float64):
        for steps in (
            {},
            {"bias": True},
            {"affine": False, "activation": None},
            {"affine": None, "bias": True},
            {"activation": nn.Tanh},
            {"affine": None, "activation": nn.Sigmoid},
        ):
            net, x = made(kind, data_format, dtype, **steps)
            y = net(x)
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, one_by_one(net, x), err_msg=f"{dtype.__name__} {steps}")


def test_it_is_one_pass():
    """The engine is called once, with the norm."""
    net, x = made("winograd", "channels_last", np.float32)
    calls = []
    original = fastconv._engine.conv_forward
    try:
        fastconv._engine.conv_forward = lambda *a: calls.append(len(a)) or original(*a)
        net(x)
        assert calls == [14]
        net.train()(x)
        assert calls == [14, 13]
    finally:
        fastconv._engine.conv_forward = original


def test_values_that_are_not_finite_pass_through():
    net, x = made("pointwise", "channels_first", np.float32, activation=None)
    x[0, :, 0, 0], x[1, 3, 2, 2] = np.nan, np.inf
    net[1].running_mean[2], net[1].running_var[5] = np.inf, np.nan
    y, expected = net(x), one_by_one(net, x)
    np.testing.assert_array_equal(y, expected)
    assert np.isnan(y[0, :, 0, 0]).all()


def test_changed_weights_and_statistics_are_seen():
    """Nothing is kept from one call to the next."""
    net, x = made("direct", "channels_first", np.float32)
    net(x)
    net[0].weight.data *= 2
    net[1].running_mean += 1
    net[1].weight.data[3] = 0
    np.testing.assert_array_equal(net(x), one_by_one(net, x))


def test_what_is_not_one_pass_stays_apart():
    """Layers that remember, subclasses, norms of a batch's statistics, unbatched and 16-bit inputs."""

    class Doubled(nn.ReLU):
        def forward(self, x):
            return 2 * super().forward(x)

    net, x = made("direct", "channels_first", np.float32)
    doubled = nn.Sequential(net[0], net[1], Doubled()).eval()
    np.testing.assert_array_equal(doubled(x), 2 * net(x))
    alone = nn.Sequential(net[0], nn.ReLU()).eval()
    np.testing.assert_array_equal(alone(x[0]), alone(x)[0])
    g = np.ones_like(net(x))
    net.eval(keep_for_backward=True)(x)
    assert net.backward(g).shape == x.shape
    net.eval()(x)
    with pytest.raises(RuntimeError, match="no forward"):
        net.backward(g)
    untracked = nn.Sequential(net[0], nn.BatchNorm2d(31, track_running_stats=False)).eval()
    np.testing.assert_allclose(untracked(x).mean((0, 2, 3)), 0, atol=1e-5)
    half = nn.Sequential(nn.Conv2d(4, 4, 1, dtype=np.float16), nn.ReLU()).eval()
    assert half(np.ones((1, 4, 2, 2), np.float16)).dtype == np.float16


def test_errors_are_the_layers_own():
    wrong = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(9)).eval()
    with pytest.raises(ValueError, match=r"BatchNorm2d\(9.*9 channels"):
        wrong(np.ones((1, 3, 4, 4), np.float32))
    negative = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, eps=-1)).eval()
    with pytest.raises(ValueError, match="eps: got -1"):
        negative(np.ones((1, 3, 4, 4), np.float32))
    conv = [1, 1], [(0, 0), (0, 0)], [1, 1], 1, "zeros", False, None, None, 0.0, "highest"
    x, w, some = np.ones((1, 3, 4, 4), np.float32), np.ones((8, 3, 1, 1), np.float32), np.ones(7, np.float32)
    for norm in ((some,), (some, some, None, None), (some, some, some, some)):
        with pytest.raises(ValueError, match=r"norm: expected|wrong shape"):
            _core.conv_forward(x, w, None, *conv, norm)


def test_observers_see_every_layer():
    net, x = made("direct", "channels_first", np.float32)

    seen = []

    class Observer:
        def enter(self, module, x):
            pass

        def leave(self, module, x, y):
            seen.append(type(module).__name__)

    with observe(Observer()):
        net(x)
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Sequential"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 64, 33, 31)])
def test_residual_sums(isa, shape, dtype):
    """Sum and rectified sum are NumPy's, for arrays of any order in memory; the gradient is the sum's."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    x.flat[0] = np.nan
    for given in (x, np.asfortranarray(x), x[:, :, ::-1]):
        block = nn.Residual(nn.LeakyReLU(0.5))
        branch = np.where(given > 0, given, given * dtype(0.5))
        np.testing.assert_array_equal(block(given), branch + given)
        g = rng.standard_normal(shape).astype(dtype)
        np.testing.assert_array_equal(block.backward(g), np.where(given > 0, g, g * dtype(0.5)) + g)
    block, relu = nn.Residual(nn.LeakyReLU(0.5)), nn.ReLU()
    y = rectified_sum(block, relu, x)
    total = np.where(x > 0, x, x * dtype(0.5)) + x
    np.testing.assert_array_equal(y, np.where(total <= 0, 0, total))
    np.testing.assert_array_equal(relu.backward(np.ones_like(x)), ~(y <= 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (2, 33, 6, 5), (4, 300, 3, 2), (2, 3, 70, 71), (40, 12)])
def test_norm_and_relu_in_training(isa, shape, data_format, dtype):
    """The bits of one after the other, forward and backward, whatever the gradient's order in memory."""
    if len(shape) == 4 and data_format == "channels_last":
        shape = (shape[0], *shape[2:], shape[1])
    channels = shape[-1 if data_format == "channels_last" else 1]
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    rng = np.random.default_rng(5)
    x, g = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    nets = []
    for _ in range(2):
        norm = kind(channels, data_format=data_format, dtype=dtype)
        norm.weight.data[:], norm.bias.data[:] = np.linspace(-2, 2, channels), np.linspace(1, -1, channels)
        nets.append(nn.Sequential(norm, nn.ReLU()))
    fused, apart = nets
    np.testing.assert_array_equal(fused(x), one_by_one(apart, x))
    np.testing.assert_array_equal(fused[0].running_var, apart[0].running_var)
    for given in (g, np.asfortranarray(g), np.repeat(g, 2, 0)[::2]):
        for net in nets:
            net.zero_grad()
        expected = apart[0].backward(apart[1].backward(given))
        np.testing.assert_array_equal(fused.backward(given), expected)
        for ours, theirs in zip(fused.parameters(), apart.parameters(), strict=True):
            np.testing.assert_array_equal(ours.grad, theirs.grad)
    # One after the other, and frozen statistics.
    np.testing.assert_array_equal(fused[0].backward(fused[1].backward(g)), apart[0].backward(apart[1].backward(g)))
    for net in nets:
        net.eval(keep_for_backward=True)
    np.testing.assert_array_equal(fused(x), one_by_one(apart, x))
    np.testing.assert_array_equal(fused.backward(g), apart[0].backward(apart[1].backward(g)))
    with pytest.raises(ValueError, match="grad_output"):
        fused.backward(g[1:])


def test_norms_engine_refuses_what_does_not_fit():
    """The result of a ReLU: of the input's shape, dense, of a float type."""
    x, one = np.ones((2, 4, 3, 3), np.float32), np.ones(4, np.float32)
    args = False, False, one, one, None, True, True
    for wrong in (x[:, :, :2], np.ones((2, 4, 3, 6), np.float32)[..., ::2]):
        with pytest.raises(ValueError, match="rectified"):
            _core.batch_norm_backward(x, x, x.copy(), *args, wrong)
    half = x.astype(np.float16)
    with pytest.raises(TypeError, match="rectified"):
        _core.batch_norm_backward(half, half, half.copy(), *args, half)


def test_a_residual_of_the_identity_changes_no_input():
    x = np.ones((1, 2, 3, 3), np.float32)
    y = nn.Residual(nn.Dropout(0.5)).eval()(x)
    assert (x == 1).all()
    assert (y == 2).all()


def test_what_is_derived_is_computed_before_a_fused_forward():
    """A norm's weight under spectral norm follows its source, in training and in evaluation."""
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 5)).astype(np.float32)
    nets = [nn.Sequential(nn.utils.spectral_norm(nn.BatchNorm2d(6), n_power_iterations=1), nn.ReLU()) for _ in "ab"]
    nets[1].load_state_dict(nets[0].state_dict())
    for mode in (True, False):
        for net in nets:
            net.train(mode)
            net[0].weight_orig.data[:] = np.linspace(-3, 2, 6)
        np.testing.assert_array_equal(nets[0](x), one_by_one(nets[1], x))


def test_what_an_instance_defines_itself_is_called():
    net, x = made("direct", "channels_first", np.float32)
    for i in range(3):
        own = nn.Sequential(*net).eval()
        own[i].forward = lambda x: np.full((1, 31, 2, 2), 7, np.float32)
        np.testing.assert_array_equal(own(x), one_by_one(own, x))
        del own[i].forward


def test_misaligned_arrays_are_added():
    memory = np.zeros(4 * 9 + 1, np.uint8)
    x = memory[1:].view(np.float32).reshape(1, 1, 3, 3)
    x[:] = 1
    assert not x.flags.aligned
    np.testing.assert_array_equal(nn.Residual(nn.ReLU())(x), np.full((1, 1, 3, 3), 2))
