"""The scikit-learn estimators: scikit-learn's own checks, its validation, and what images need beyond them."""

from __future__ import annotations

import pickle
import sys

import fastconv
import numpy as np
import pytest
from fastconv import models, nn
from fastconv.sklearn import ConvClassifier, ConvRegressor, small_network
from sklearn import datasets, model_selection
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks


@pytest.fixture(autouse=True)
def one_thread():
    """So small networks gain nothing from more threads."""
    before = fastconv.get_num_threads()
    fastconv.set_num_threads(1)
    yield
    fastconv.set_num_threads(before)


@parametrize_with_checks([ConvClassifier(epochs=10), ConvRegressor(epochs=10)])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(estimator, check):
    """All of check_estimator. scikit-learn itself skips the check of array libraries: ours are of NumPy only."""
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    images, labels = datasets.load_digits(return_X_y=True)
    return images[:600], labels[:600]


def test_hold_out_k_fold_and_shuffled_validation(digits):
    """Splits and metrics are scikit-learn's; the same network is trained in each."""
    images, labels = digits
    estimator = ConvClassifier(input_shape=(1, 8, 8), epochs=8, random_state=0)
    splits = [
        model_selection.StratifiedKFold(3, shuffle=True, random_state=0),
        model_selection.ShuffleSplit(2, test_size=0.3, random_state=0),
    ]
    for split in splits:
        scores = model_selection.cross_validate(
            estimator, images, labels, cv=split, scoring=("accuracy", "neg_log_loss"), return_train_score=True
        )
        assert scores["test_accuracy"].min() > 0.85
        assert scores["train_accuracy"].min() > 0.97
        assert scores["test_neg_log_loss"].min() > -0.7
    few = np.flatnonzero(labels < 2)[:8]
    left_out = model_selection.cross_val_score(estimator, images[few], labels[few], cv=model_selection.LeavePOut(2))
    assert len(left_out) == 8 * 7 // 2


def test_grid_search_finds_the_better_setting(digits):
    images, labels = digits
    search = model_selection.GridSearchCV(
        ConvClassifier(input_shape=(1, 8, 8), epochs=3, random_state=0),
        {"learning_rate": [1e-6, 5e-3], "batch_size": [16]},
        cv=2,
    ).fit(images, labels)
    assert search.best_params_ == {"learning_rate": 5e-3, "batch_size": 16}
    assert search.best_estimator_.score(images, labels) > 0.9


def _lenet(input_shape, outputs, rng):
    return models.lenet5(outputs, input_shape[0], rng=rng)


def test_images_and_a_network_of_ones_own():
    rng = np.random.default_rng(0)
    labels = np.array(["left", "right"])[rng.integers(0, 2, 80)]
    images = rng.integers(0, 50, (80, 3, 28, 28), dtype=np.uint8)
    images[labels == "right", :, :, 14:] += 100
    estimator = ConvClassifier(_lenet, epochs=4, random_state=0).fit(images[:60], labels[:60])
    assert isinstance(estimator.model_["conv1"], nn.Conv2d)
    assert estimator.score(images[60:], labels[60:]) == 1
    proba = estimator.predict_proba(images[60:])
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    assert (estimator.classes_[proba.argmax(1)] == labels[60:]).all()
    np.testing.assert_array_equal(estimator.predict_proba(images[60:61]), proba[:1])
    other = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(other.predict_proba(images[60:]), proba)
    with pytest.raises(ValueError, match=r"X: expected samples of shape \(3, 28, 28\), as in fit, got \(3, 28, 20\)"):
        estimator.predict(images[:, :, :, :20])


def test_regression_of_several_numbers():
    """Where a blob is, and how bright: numbers of very different sizes."""
    rng = np.random.default_rng(0)
    x, y, brightness = rng.uniform(2, 9, 240), rng.uniform(2, 9, 240), rng.uniform(1, 2, 240)
    rows, columns = np.indices((12, 12))
    images = brightness[:, None, None] * np.exp(
        -((rows - y[:, None, None]) ** 2 + (columns - x[:, None, None]) ** 2) / 4
    )
    targets = np.stack([x, y, 1000 * brightness], 1)
    estimator = ConvRegressor(epochs=30, random_state=0).fit(images[:200, None], targets[:200])
    predicted = estimator.predict(images[200:, None])
    assert predicted.shape == (40, 3)
    error = np.abs(predicted - targets[200:]).mean(0)
    assert (error < [0.5, 0.5, 80]).all(), error
    assert estimator.score(images[200:, None], targets[200:]) > 0.9


def test_held_out_samples_judge_the_epochs(digits):
    images, labels = digits
    estimator = ConvClassifier(
        input_shape=(1, 8, 8), epochs=40, learning_rate=0.02, validation_fraction=0.25, patience=2, random_state=0
    ).fit(images, labels)
    losses = estimator.history_.column("val_loss")
    assert estimator.n_iter_ == len(losses) < 40
    assert int(np.argmin(losses)) == len(losses) - 1 - 3
    whole = clone(estimator).set_params(validation_fraction=0.0, epochs=1, patience=None).fit(images, labels)
    assert "val_loss" not in whole.history_[0]


def test_a_seed_gives_a_network(digits):
    images, labels = digits
    make = ConvClassifier(input_shape=(1, 8, 8), epochs=1, random_state=3)
    one, same, other = (
        clone(make).set_params(random_state=seed).fit(images[:50], labels[:50]).predict_proba(images)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("shape", [(2, 1), (1, 30), (3, 4, 4), (1, 3, 9), (2, 4, 5, 6)], ids=str)
def test_small_network_takes_every_shape(shape):
    net = small_network(shape, 3, np.random.default_rng(0))
    assert net(np.zeros((2, *shape), np.float32)).shape == (2, 3)


def test_bad_arguments(digits):
    images, labels = digits
    with pytest.raises(ValueError, match=r"input_shape: \(1, 7, 8\) has 56 features, X has 64"):
        ConvClassifier(input_shape=(1, 7, 8)).fit(images, labels)
    with pytest.raises(ValueError, match="X: expected samples with 1, 2 or 3 spatial axes"):
        ConvClassifier().fit(np.zeros((2, 1, 1, 1, 1, 1)), [0, 1])
    with pytest.raises(NotFittedError):
        ConvRegressor().predict(images)


def test_without_scikit_learn(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn" or name == "fastconv.sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"needs the package 'scikit-learn'.*pip install 'fastconv\[sklearn\]'"):
        import fastconv.sklearn  # noqa: F401
