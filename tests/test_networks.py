"""The known networks: published sizes, PyTorch's outputs and gradients from PyTorch's weights, and their own parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_models
from fastconv import models, nn
from fastconv.models.galaxy import CenterCrop
from fastconv.testing import gradcheck


def _sizes(model):
    """Trained values, and values of running statistics."""
    buffers = [array.size for name, array in model.named_buffers() if not name.endswith("num_batches_tracked")]
    return sum(parameter.size for parameter in model.parameters()), sum(buffers)


@pytest.mark.parametrize(
    ("name", "keywords", "trained", "statistics"),
    [
        # torchvision's pages of these models
        ("alexnet", {}, 61_100_840, 0),
        ("resnet18", {}, 11_689_512, 9_600),
        ("resnet50", {}, 25_557_032, 53_120),
        # the usual CIFAR-10 form
        ("resnet18", {"num_classes": 10, "form": "small"}, 11_173_962, 9_600),
        # summary() of Keras's example "Image classification from scratch", of 2,782,649 in all
        ("xception", {"num_classes": 1}, 2_773_913, 8_736),
        # summary() of the authors' network, of 58,423 in all
        ("mini_xception", {}, 56_951, 1_472),
        ("pooled_net", {}, 16 * 9 + 16 * 16 * 9 + 16 * 32 * 9 + 32 * 32 * 9 + 2 * 96 + 330, 192),
    ],
)
def test_published_sizes(name, keywords, trained, statistics):
    assert _sizes(getattr(models, name)(**keywords)) == (trained, statistics)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_names_and_shapes_are_torchvisions(name):
    with torch.device("meta"):
        theirs = getattr(torch_models, name)().state_dict()
    model = getattr(models, name)()
    ours = {key: each.shape for key, each in (*model.named_parameters(), *model.named_buffers())}
    assert ours == {key: tuple(each.shape) for key, each in theirs.items()}


# Small enough to be quick in float64, with every kind of block; inputs that odd sizes and every padding occur in.
NETWORKS = {
    "resnet18": ("resnet18", {"num_classes": 5, "in_channels": 2, "width": 4}, (2, 2, 65, 50)),
    "resnet18 small": ("resnet18", {"num_classes": 5, "width": 4, "form": "small"}, (2, 3, 20, 17)),
    "resnet50": ("resnet50", {"num_classes": 5, "width": 4}, (2, 3, 65, 50)),
    "xception": ("xception", {"num_classes": 3, "dropout": 0.0}, (2, 3, 21, 18)),
    "mini_xception": ("mini_xception", {"num_classes": 4}, (2, 1, 37, 34)),
    "conv_autoencoder": ("conv_autoencoder", {"in_channels": 2, "latent": 5, "width": 4}, (2, 2, 28, 28)),
    "galaxy_net": ("galaxy_net", {"image_size": 69, "dropout": 0.0}, (2, 3, 69, 69)),
}


def _pair(name, keywords, data_format="channels_first"):
    """Our network with the weights of PyTorch's, in float64; running statistics that are not those of the start."""
    torch.manual_seed(0)
    theirs = getattr(torch_models, name)(**keywords).double()
    for key, buffer in theirs.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    ours = getattr(models, name)(**keywords, data_format=data_format, dtype=np.float64)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize(("name", "keywords", "shape"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_pytorchs_weights_give_pytorchs_output_and_gradients(name, keywords, shape, data_format):
    ours, theirs = _pair(name, keywords, data_format)
    last = data_format == "channels_last"
    x = np.random.default_rng(1).random(shape)

    def apply(x):
        y = ours(np.moveaxis(x, 1, -1) if last else x)
        return np.moveaxis(y, -1, 1) if last and y.ndim == 4 else y

    for mode in (False, True):
        theirs.train(mode)
        ours.train(mode)
        expected = theirs(t := torch.from_numpy(x).requires_grad_())
        np.testing.assert_allclose(apply(x), expected.detach(), rtol=1e-8, atol=1e-10)
    direction = np.random.default_rng(2).standard_normal(expected.shape)
    expected.backward(torch.from_numpy(direction))
    grad = ours.backward(np.moveaxis(direction, 1, -1) if last and direction.ndim == 4 else direction)
    gradients = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters()}
    # A bias before a batch norm has a gradient of 0: what is left of its terms is as large as their rounding.
    bound = 1e-11 * max(np.abs(gradient).max() for gradient in gradients.values())
    np.testing.assert_allclose(np.moveaxis(grad, -1, 1) if last else grad, t.grad, rtol=1e-6, atol=bound)
    for key, parameter in ours.named_parameters():
        np.testing.assert_allclose(parameter.grad, gradients[key], rtol=1e-6, atol=bound, err_msg=key)
    for (key, buffer), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(buffer, other, rtol=1e-9, err_msg=key)


@pytest.mark.parametrize(("name", "shape"), [("alexnet", (1, 3, 70, 63)), ("resnet18", (1, 3, 64, 64))])
def test_full_size_with_pytorchs_weights(name, shape):
    torch.manual_seed(0)
    theirs = getattr(torch_models, name)().eval()
    ours = getattr(models, name)().eval()
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours(x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "shape", "output", "multiply_adds"),
    [
        # torchvision's pages give these as "GFLOPS": 0.71, 1.81 and 4.09
        ("alexnet", (1, 3, 224, 224), (1, 1000), 714_188_480),
        ("resnet18", (1, 3, 224, 224), (1, 1000), 1_814_073_344),
        ("resnet50", (1, 3, 224, 224), (1, 1000), 4_089_184_256),
        ("xception", (1, 3, 180, 180), (1, 1000), None),
        ("mini_xception", (1, 1, 64, 64), (1, 7), None),
        ("pooled_net", (1, 1, 28, 28), (1, 10), None),
        ("conv_autoencoder", (2, 1, 28, 28), (2, 1, 28, 28), None),
        ("galaxy_net", (1, 3, 424, 424), (1, 37), None),
    ],
)
def test_summaries(name, shape, output, multiply_adds):
    summary = getattr(models, name)().summary(shape)
    assert summary.rows[-1].output_shape == output
    assert multiply_adds in (None, summary.multiply_adds)
    assert all(row.name for row in summary.rows), "every layer has the name that the state gives it"
    assert "-" not in summary._fields, "every layer's receptive field is known"


@pytest.mark.parametrize("name", ["resnet18", "mini_xception", "conv_autoencoder", "galaxy_net", "pooled_net"])
def test_one_seed_gives_one_network(name):
    keywords = {"width": 4} if name == "resnet18" else {}
    first, second = (getattr(models, name)(rng=np.random.default_rng(3), **keywords) for _ in range(2))
    for (key, one), (_, other) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        np.testing.assert_array_equal(one.data, other.data, err_msg=key)
        assert one.dtype == np.float32
    if name == "galaxy_net":
        x = np.random.default_rng(0).random((2, 3, 424, 424), dtype=np.float32)
        np.testing.assert_array_equal(first(x), second(x), err_msg="dropout follows the seed, too")


def test_resnet_starts_as_the_paper_says():
    """Normal weights with a variance of 2 / fan_out."""
    weight = models.resnet18(form="small", rng=np.random.default_rng(0)).state_dict()["layer3.0.conv2.weight"]
    assert weight.std() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_bad_arguments():
    with pytest.raises(ValueError, match="form: expected 'imagenet' or 'small', got 'cifar'"):
        models.resnet18(form="cifar")
    with pytest.raises(ValueError, match="image_size: expected a multiple of 4, got 30"):
        models.conv_autoencoder(image_size=30)
    with pytest.raises(ValueError, match="image_size: expected 424 or 69, got 64"):
        models.galaxy_net(64)


# ---- galaxies ------------------------------------------------------------------------------------------------------


def test_answers_respect_the_decision_tree():
    """The constraints that the challenge's page lists: what the answers of each question sum to."""
    tree = models.DecisionTree()
    y = tree(3 * np.random.default_rng(0).standard_normal((50, 37)))
    one = np.ones(50)
    q = np.split(y, np.cumsum([3, 2, 2, 2, 4, 2, 3, 7, 3, 3]), 1)
    sums = [one, q[0][:, 1], *[q[1][:, 1]] * 3, one, q[0][:, 0], q[5][:, 0], q[1][:, 0], q[3][:, 0], q[3][:, 0]]
    for number, (answers, expected) in enumerate(zip(q, sums, strict=True), 1):
        np.testing.assert_allclose(answers.sum(1), expected, rtol=1e-12, err_msg=f"question {number}")
    assert y.min() >= 0


def test_decision_tree_gradient():
    assert gradcheck(models.DecisionTree(), np.random.default_rng(0).standard_normal((3, 37)))


def test_decision_tree_of_ones_own():
    tree = models.DecisionTree([models.Question(2, None), models.Question(3, 1)])
    y = tree(np.log(np.array([[1.0, 3.0, 1.0, 1.0, 2.0]])))
    np.testing.assert_allclose(y, [[0.25, 0.75, 0.1875, 0.1875, 0.375]])
    with pytest.raises(ValueError, match="questions: one comes after answer 2, expected one of the 2 before it"):
        models.DecisionTree([models.Question(2, None), models.Question(3, 2)])
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 5\), got \(1, 4\)"):
        tree(np.zeros((1, 4)))


def test_reduced_images_serve_the_same_weights():
    """Cutting and reducing beforehand gives what the whole network gives."""
    whole = models.galaxy_net(rng=np.random.default_rng(0)).eval()
    part = models.galaxy_net(69).eval()
    part.load_state_dict(whole.state_dict())
    x = np.random.default_rng(1).random((2, 3, 424, 424), dtype=np.float32)
    reduced = nn.AvgPool2d(3)(CenterCrop(207)(x))
    np.testing.assert_array_equal(whole(x), part(reduced))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_center_crop(data_format):
    x = np.arange(2 * 7 * 6 * 3, dtype=float).reshape(2, 7, 6, 3)
    layer = CenterCrop(4, data_format=data_format)
    x, axes = (x, (1, 2)) if data_format == "channels_last" else (np.moveaxis(x, -1, 1), (2, 3))
    y = layer(x)
    assert [y.shape[axis] for axis in axes] == [4, 4]
    np.testing.assert_array_equal(y, x.take(range(1, 5), axes[0]).take(range(1, 5), axes[1]))
    assert gradcheck(layer, x)
    with pytest.raises(ValueError, match="x: expected images of at least 4 x 4"):
        layer(x[:, :3, :3, :3])
