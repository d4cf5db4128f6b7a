"""Losses against their definitions and against PyTorch."""

import itertools

import fastconv.functional as F
import numpy as np
import problems
import pytest
import reference
import tolerance
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st

REDUCTIONS = ("mean", "sum", "none")
both_dtypes = pytest.mark.parametrize("dtype", problems.DTYPES)


def bound_of(dtype, expected, terms):
    """A few roundings of the result and of its largest term, and the float64 sum of ``terms`` others."""
    size = 2 + np.abs(expected).max(initial=0.0)
    return tolerance.sum_bound(dtype, 8, size) + tolerance.sum_bound(np.float64, terms, size)


@both_dtypes
@settings(max_examples=200)
@given(data=st.data())
def test_random_cross_entropy(isa, dtype, data):
    """Indices or probabilities, weights, smoothing, ignored targets, every reduction and view."""
    source = problems.Drawn(data)
    rng = source.rng
    n, c = source.integer(1, 40), source.choice((1, 2, 3, 10, 33, 300))
    size = problems.some(source, source.integer(0, 3), 1, 7)
    x = (rng.standard_normal((n, c, *size)) * 3).astype(dtype)
    keywords = {
        "weight": rng.uniform(0.1, 2, c).astype(dtype) if source.integer(0, 1) else None,
        "reduction": source.choice(REDUCTIONS),
        "label_smoothing": source.choice((0.0, 0.1, 1.0)),
    }
    if source.integer(0, 2):
        target = rng.integers(0, c, (n, *size)).astype(source.choice((np.int64, np.int32, np.uint8)))
        target = target % c if c < 256 else target
        if source.integer(0, 1) and n > 1:
            keywords["ignore_index"] = int(target.flat[0])
    else:
        target = rng.dirichlet(np.ones(c), (n, *size))
        target = np.ascontiguousarray(np.moveaxis(target, -1, 1)).astype(dtype)
    x = problems.as_view(x, source.choice(problems.VIEWS))
    loss = F.cross_entropy(x, target, **keywords)
    wanted = reference.cross_entropy(x, target, **keywords)
    assert np.asarray(loss).dtype == dtype
    assert isinstance(loss, dtype) == (keywords["reduction"] != "none")
    tolerance.assert_close(loss, wanted, bound_of(dtype, wanted, c + target.size), "loss")
    g = np.asarray(rng.standard_normal(np.shape(wanted)), dtype)
    gradient = F.cross_entropy_backward(g, x, target, **keywords)
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = reference.cross_entropy_backward(g, x, target, **keywords)
    if np.isnan(wanted).all():  # nothing counts: PyTorch's gradient is 0, 0 / 0 is not
        wanted = np.zeros_like(wanted)
    tolerance.assert_close(gradient, wanted, tolerance.sum_bound(dtype, c + 8, 3 * (1 + np.abs(g).max())), "gradient")


@pytest.mark.parametrize(
    ("reduction", "smoothing", "weighted", "kind"),
    list(itertools.product(REDUCTIONS, (0.0, 0.2), (False, True), ("indices", "probabilities", "ignored", "single"))),
)
def test_pytorch_rules(isa, reduction, smoothing, weighted, kind):
    """The loss and the gradient are PyTorch's, float64."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 5, 3) if kind != "single" else (5,))
    target = rng.integers(0, 5, (6, 3)) if kind != "single" else np.array(3)
    if kind == "ignored":
        target[0], target[2, 1] = -100, -100
    if kind == "probabilities":
        target = np.moveaxis(rng.dirichlet(np.ones(5), (6, 3)), -1, 1).copy()
    weight = rng.uniform(0.5, 2, 5) if weighted else None
    logits = torch.tensor(x, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(
        logits,
        torch.tensor(target),
        None if weight is None else torch.tensor(weight),
        reduction=reduction,
        label_smoothing=smoothing,
    )
    ours = F.cross_entropy(x, target, weight, -100, reduction, smoothing)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12)
    g = np.asarray(rng.standard_normal(tuple(theirs.shape)))
    (wanted,) = torch.autograd.grad(theirs, logits, torch.tensor(g))
    gradient = F.cross_entropy_backward(g, x, target, weight, -100, reduction, smoothing)
    np.testing.assert_allclose(gradient, wanted.numpy(), rtol=1e-11, atol=1e-14)


def test_nothing_counts(isa):
    """Where every target is ignored the mean is NaN, the sum 0 and the gradient 0; no samples, the same."""
    x, target = np.ones((4, 3), "f"), np.full(4, -100)
    assert np.isnan(F.cross_entropy(x, target))
    assert F.cross_entropy(x, target, reduction="sum") == 0
    np.testing.assert_array_equal(F.cross_entropy_backward(np.float32(1), x, target), 0)
    assert np.isnan(F.cross_entropy(x[:0], target[:0]))
    assert F.cross_entropy_backward(np.float32(1), x[:0], target[:0]).shape == (0, 3)
    assert np.isnan(F.mse_loss(x[:0], x[:0]))


def test_large_logits(isa):
    """No overflow, and an ignored position may hold anything."""
    x = np.array([[1e38, 0, 0], [np.nan, np.inf, 0]], "f")
    assert F.cross_entropy(x, np.array([0, -100])) == 0
    gradient = F.cross_entropy_backward(np.float32(1), x, np.array([0, -100]))
    np.testing.assert_array_equal(gradient[1], 0)


def test_threads_do_not_change_bits(isa, threads):
    """Sums of many positions in one order."""
    rng = np.random.default_rng(1)
    x, target = rng.standard_normal((7, 11, 60, 61)).astype("f"), rng.integers(0, 11, (7, 60, 61))
    results = []
    for count in (1, 4):
        threads(count)
        gradient = F.cross_entropy_backward(np.float32(1), x, target)
        results.append((F.cross_entropy(x, target), F.mse_loss(x, x[::-1]), gradient))
    for a, b in zip(*results, strict=True):
        tolerance.assert_same_bits(a, b)


@both_dtypes
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("view", problems.VIEWS)
def test_mse(isa, view, reduction, dtype):
    """Any views of either array."""
    rng = np.random.default_rng(2)
    for shape in ((5,), (7, 13), (3, 4, 5, 6), (40000,)):
        y, target = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        y = problems.as_view(y, view)
        loss = F.mse_loss(y, target, reduction)
        wanted = reference.mse_loss(y, target, reduction)
        assert np.asarray(loss).dtype == dtype
        tolerance.assert_close(loss, wanted, tolerance.ulp_bound(dtype, wanted, 8), "loss")
        g = np.asarray(rng.standard_normal(np.shape(wanted)), dtype)
        gradient = F.mse_loss_backward(g, y, target, reduction)
        wanted = reference.mse_loss_backward(g, y, target, reduction)
        tolerance.assert_close(gradient, wanted, tolerance.ulp_bound(dtype, wanted, 8), "gradient")


@both_dtypes
@settings(max_examples=100)
@given(data=st.data())
def test_random_binary_cross_entropy(isa, dtype, data):
    """Any views, weights of any shape that broadcasts, every reduction."""
    source = problems.Drawn(data)
    rng = source.rng
    shape = problems.some(source, source.integer(1, 4), 1, 8)
    if source.integer(0, 1):
        shape = (*shape[:1], source.integer(1, 3000))
    y = (rng.standard_normal(shape) * source.choice((1.0, 20.0))).astype(dtype)
    target = rng.uniform(0, 1, shape).astype(dtype)
    if source.integer(0, 1):
        target = np.round(target)

    def weights():
        kind = source.integer(0, 3)
        own = (shape, shape[1:], tuple(1 if i % 2 else s for i, s in enumerate(shape)))[kind - 1]
        return None if kind == 0 else rng.uniform(0.1, 3, own).astype(dtype)

    keywords = {"weight": weights(), "pos_weight": weights(), "reduction": source.choice(REDUCTIONS)}
    views = [problems.as_view(a, source.choice(problems.VIEWS[:-1])) for a in (y, target)]
    loss = F.binary_cross_entropy_with_logits(*views, **keywords)
    wanted = reference.binary_cross_entropy_with_logits(y, target, **keywords)
    assert np.asarray(loss).dtype == dtype
    tolerance.assert_close(loss, wanted, bound_of(dtype, wanted, y.size), "loss")
    g = np.asarray(rng.standard_normal(np.shape(wanted)), dtype)
    gradient = F.binary_cross_entropy_with_logits_backward(g, *views, **keywords)
    wanted = reference.binary_cross_entropy_with_logits_backward(g, y, target, **keywords)
    size = 9 * (1 + np.abs(g).max())
    tolerance.assert_close(gradient, wanted, tolerance.sum_bound(dtype, 8, size), "gradient")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_follows_pytorch(isa, reduction, weighted):
    """The loss and the gradient are PyTorch's, float64; what it refuses is refused."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(4)
    y, target = rng.standard_normal((6, 5)) * 4, rng.uniform(0, 1, (6, 5))
    weight, positive = (rng.uniform(0.5, 2, s) if weighted else None for s in ((6, 1), (5,)))
    logits = torch.tensor(y, requires_grad=True)
    tensors = [None if a is None else torch.tensor(a) for a in (weight, positive)]
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.tensor(target), tensors[0], reduction=reduction, pos_weight=tensors[1]
    )
    ours = F.binary_cross_entropy_with_logits(y, target, weight, reduction, positive)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12)
    g = np.asarray(rng.standard_normal(tuple(theirs.shape)))
    (wanted,) = torch.autograd.grad(theirs, logits, torch.tensor(g))
    gradient = F.binary_cross_entropy_with_logits_backward(g, y, target, weight, reduction, positive)
    np.testing.assert_allclose(gradient, wanted.numpy(), rtol=1e-11, atol=1e-14)
    with pytest.raises(ValueError, match="target"):
        F.binary_cross_entropy_with_logits(y, target[0])


def test_binary_cross_entropy_of_large_logits(isa):
    """No overflow, and no cancellation where the loss is tiny."""
    y = np.array([-800.0, -50.0, 0.0, 50.0, 800.0])
    loss = F.binary_cross_entropy_with_logits(y, np.zeros(5), reduction="none")
    np.testing.assert_allclose(loss, [0, np.exp(-50), np.log(2), 50, 800], rtol=1e-14)
    gradient = F.binary_cross_entropy_with_logits_backward(np.ones(5), y, np.zeros(5), reduction="none")
    np.testing.assert_allclose(gradient[:3], [0, np.exp(-50), 0.5], rtol=1e-14)
    np.testing.assert_array_equal(gradient[3:], 1)
    assert np.isnan(F.binary_cross_entropy_with_logits(y * np.nan, np.zeros(5)))
    assert np.isnan(F.binary_cross_entropy_with_logits(y[:0], y[:0]))


def test_binary_gradcheck(isa):
    """The gradient is what central differences of the loss say."""
    rng = np.random.default_rng(5)
    target, weight, positive = rng.uniform(0, 1, (4, 5)), rng.uniform(0.5, 2, 5), rng.uniform(0.5, 2, (4, 1))
    options = {"weight": weight, "pos_weight": positive, "reduction": "none"}

    def function(y):
        loss = F.binary_cross_entropy_with_logits(y, target, **options)
        return loss, lambda g: F.binary_cross_entropy_with_logits_backward(g, y, target, **options)

    assert gradcheck(function, (rng.standard_normal((4, 5)),))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradcheck(isa, smoothing):
    """The gradients are what central differences of the losses say."""
    rng = np.random.default_rng(3)
    x, target = rng.standard_normal((4, 5)), rng.integers(0, 5, 4)
    keywords = {"label_smoothing": smoothing, "reduction": "none"}

    def entropy(x):
        return F.cross_entropy(x, target, **keywords), lambda g: F.cross_entropy_backward(g, x, target, **keywords)

    def square(y):
        return F.mse_loss(y, x, "none"), lambda g: F.mse_loss_backward(g, y, x, "none")

    assert gradcheck(entropy, (x,))
    assert gradcheck(square, (rng.standard_normal((4, 5)),))


def test_a_plain_number_is_a_gradient():
    """``grad_output`` of a reduced loss may be a Python number."""
    x, target = np.ones((2, 3), "f"), np.array([0, 1])
    gradient = F.cross_entropy_backward(1.0, x, target)
    tolerance.assert_same_bits(gradient, F.cross_entropy_backward(np.float32(1), x, target))
    assert F.mse_loss_backward(2, x, x).dtype == np.float32


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 4), (2, 5, 3, 2)], ids=str)
def test_channels_last(isa, reduction, shape):
    """The same bits whatever the place of the classes, for indices and for probabilities."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    indices = rng.integers(0, 5, (shape[0], *shape[2:]))
    probabilities = np.moveaxis(rng.dirichlet(np.ones(5), (shape[0], *shape[2:])), -1, 1)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for target, moved in ((indices, indices), (probabilities, np.moveaxis(probabilities, 1, -1))):
        keywords = {"weight": rng.uniform(0.1, 2, 5), "reduction": reduction, "label_smoothing": 0.1}
        loss = F.cross_entropy(x, target, **keywords)
        tolerance.assert_same_bits(F.cross_entropy(last, moved, data_format="NHWC", **keywords), loss)
        g = rng.standard_normal(np.shape(loss)) if reduction == "none" else 2.0
        wanted = np.moveaxis(F.cross_entropy_backward(g, x, target, **keywords), 1, -1)
        gradient = F.cross_entropy_backward(g, last, moved, data_format="channels_last", **keywords)
        tolerance.assert_same_bits(gradient, wanted)
    with pytest.raises(ValueError, match="target: got shape"):
        F.cross_entropy(np.ones((2, 3, 4, 5)), np.zeros((2, 4, 5), int), data_format="channels_last")
    with pytest.raises(ValueError, match="data_format: got 'NXC'"):
        F.cross_entropy(x, indices, data_format="NXC")
