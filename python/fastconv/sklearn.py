"""Convolutional networks as scikit-learn estimators: its splits, searches and metrics work with them.

Needs scikit-learn: ``pip install 'fastconv[sklearn]'``.

Examples
--------
>>> from sklearn.datasets import load_digits
>>> from sklearn.model_selection import StratifiedKFold, cross_val_score
>>> from fastconv.sklearn import ConvClassifier
>>> images, labels = load_digits(return_X_y=True)
>>> digits = ConvClassifier(input_shape=(1, 8, 8), epochs=15, random_state=0)
>>> scores = cross_val_score(digits, images, labels, cv=StratifiedKFold(5))
>>> scores.mean() > 0.95
np.True_
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import functional as F
from . import nn, optim, train
from ._extras import require

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

_base = require("sklearn.base", purpose="fastconv.sklearn", extra="sklearn", package="scikit-learn")
_validation = require("sklearn.utils.validation", purpose="fastconv.sklearn", extra="sklearn", package="scikit-learn")
if not TYPE_CHECKING:
    BaseEstimator, ClassifierMixin, RegressorMixin = _base.BaseEstimator, _base.ClassifierMixin, _base.RegressorMixin

__all__ = ["ConvClassifier", "ConvRegressor", "small_network"]

Shape = tuple[int, ...]
Build = Callable[[Shape, int, np.random.Generator], nn.Module]


def small_network(input_shape: Shape, outputs: int, rng: np.random.Generator) -> nn.Module:
    """Return the network that the estimators use unless told otherwise.

    Two convolutions of 3, each with a ReLU and a maximum pool wherever an axis is at least 4 long, and two fully
    connected layers.

    Parameters
    ----------
    input_shape : tuple of int
        ``(C, *spatial)`` of one sample, with 1, 2 or 3 spatial axes.
    outputs : int
        Numbers that come out.
    rng : numpy.random.Generator
        Source of the first weights.
    """
    channels, *spatial = input_shape
    conv: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(spatial)]
    net = nn.Sequential()
    for width in (16, 32):
        net.append(conv(channels, width, 3, padding=1, activation="relu", rng=rng))
        window = tuple(2 if size >= 4 else 1 for size in spatial)
        net.append(nn.MaxPool(window))
        spatial = [size // step for size, step in zip(spatial, window, strict=True)]
        channels = width
    features = channels * int(np.prod(spatial))
    for layer in (nn.Flatten(), nn.Linear(features, 64, rng=rng), nn.ReLU(), nn.Linear(64, outputs, rng=rng)):
        net.append(layer)
    return net


class _ConvEstimator(BaseEstimator):  # type: ignore[misc]
    """What the two estimators share.

    Parameters
    ----------
    model : callable, optional
        ``model(input_shape, outputs, rng)`` builds the network: ``input_shape`` is ``(C, *spatial)`` of a sample,
        ``rng`` the source of its first weights. `small_network` unless given. A function of a module, not a lambda, if
        the estimator is to be pickled (or searched by several processes).
    input_shape : tuple of int, optional
        ``(C, *spatial)`` in which the features of a sample are laid out, for ``X`` of shape ``(samples, features)``.
        Unless given, such a sample is one channel of a signal. Not needed for ``X`` of shape ``(samples, C,
        *spatial)``.
    standardize : bool
        Subtract the mean of all training values and divide by their standard deviation. The numbers are found in
        ``fit``, so no fold of a cross-validation knows of the others.
    epochs, batch_size : int
        How often to go through the samples, and how many to take at a time.
    learning_rate, weight_decay : float
        Of AdamW.
    augment : callable, optional
        As for `fastconv.train.Batches`; the samples come standardized.
    validation_fraction : float
        Part of the samples that is held out and judges the epochs: the best one's weights are kept. 0: all are trained
        on, and the last weights kept.
    patience : int, optional
        Epochs without a better one before training stops early.
    random_state : int, RandomState instance or None
        Of weights, order and augmentation.
    verbose : bool
        Whether to show a progress bar.

    Attributes
    ----------
    model_ : fastconv.nn.Module
        The trained network.
    history_ : fastconv.train.History
        What each epoch gave.
    n_iter_ : int
        How many epochs there were.
    n_features_in_ : int
        Size of the second axis of ``X``.
    """

    def __init__(
        self,
        model: Build | None = None,
        *,
        input_shape: Shape | None = None,
        standardize: bool = True,
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        augment: train.Augment | None = None,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.input_shape = input_shape
        self.standardize = standardize
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def _samples(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Return checked samples as the network takes them: ``(N, C, *spatial)``, standardized."""
        if X.ndim == 2:
            shape = (1, X.shape[1]) if self.input_shape is None else tuple(self.input_shape)
            if int(np.prod(shape)) != X.shape[1]:
                raise ValueError(f"input_shape: {shape} has {int(np.prod(shape))} features, X has {X.shape[1]}")
            X = X.reshape(len(X), *shape)
        elif not 3 <= X.ndim <= 5:
            raise ValueError(f"X: expected samples with 1, 2 or 3 spatial axes, (N, C, *spatial), got shape {X.shape}")
        result: NDArray[np.float32] = np.ascontiguousarray((X - self._mean) / self._deviation, np.float32)
        return result

    def _fit(self, X: NDArray[Any], targets: NDArray[Any], outputs: int, loss: nn.Loss, stratify: Any) -> Self:
        """Train a new network on checked samples."""
        random = require("sklearn.utils", purpose="fastconv.sklearn").check_random_state(self.random_state)
        seed = int(random.randint(np.iinfo(np.int32).max))
        self._mean = float(X.mean()) if self.standardize else 0.0
        self._deviation = float(X.std()) or 1.0 if self.standardize else 1.0
        samples = self._samples(X)
        self._shape = X.shape[1:]
        validation = None
        if self.validation_fraction:
            split = require("sklearn.model_selection", purpose="fastconv.sklearn").train_test_split
            samples, held_out, targets, held_out_targets = split(
                samples, targets, test_size=self.validation_fraction, random_state=seed, stratify=stratify
            )
            validation = (held_out, held_out_targets)
        build = small_network if self.model is None else self.model
        self.model_ = build(samples.shape[1:], outputs, np.random.default_rng(seed))
        adam = optim.AdamW(self.model_.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        self.history_ = train.fit(
            self.model_,
            samples,
            targets,
            loss,
            adam,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=seed,
            augment=self.augment,
            validation=validation,
            patience=self.patience,
            restore_best=validation is not None,
            progress=self.verbose,
        )
        self.n_iter_ = len(self.history_)
        return self

    def _outputs(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the network's outputs for samples that have not been checked yet."""
        _validation.check_is_fitted(self)
        samples = _validation.validate_data(self, X, dtype="numeric", allow_nd=True, reset=False)
        if samples.shape[1:] != self._shape:
            raise ValueError(f"X: expected samples of shape {self._shape}, as in fit, got {samples.shape[1:]}")
        return train.predict(self.model_, self._samples(samples))


class ConvClassifier(ClassifierMixin, _ConvEstimator):  # type: ignore[misc]
    __doc__ = f"""A convolutional network that tells classes apart, trained by cross entropy.

    {(_ConvEstimator.__doc__ or "").partition("share.")[2].strip()}
    classes_ : numpy.ndarray
        The classes, in the order of the network's outputs.
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : array_like
            ``(samples, C, *spatial)`` or ``(samples, features)``, see ``input_shape``.
        y : array_like
            ``(samples,)`` classes, of any kind.

        Returns
        -------
        ConvClassifier
            The estimator itself.

        Raises
        ------
        ValueError
            If the arrays are not as described, or hold NaN or infinity.
        """
        samples, y = _validation.validate_data(self, X, y, dtype="numeric", allow_nd=True)
        require("sklearn.utils.multiclass", purpose="fastconv.sklearn").check_classification_targets(y)
        self.classes_, classes = np.unique(y, return_inverse=True)
        return self._fit(samples, classes.astype(np.int64), len(self.classes_), nn.CrossEntropyLoss(), classes)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the probability of each class, ``(samples, classes)``."""
        return F.softmax(self._outputs(X), 1)  # type: ignore[no-any-return]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each sample."""
        outputs = self._outputs(X)
        classes: NDArray[Any] = self.classes_[outputs.argmax(1)]
        return classes


class ConvRegressor(RegressorMixin, _ConvEstimator):  # type: ignore[misc]
    __doc__ = f"""A convolutional network that tells numbers, trained by squared error.

    The targets are standardized for training, each column by itself, and the answers put back.

    {(_ConvEstimator.__doc__ or "").partition("share.")[2].strip()}
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : array_like
            ``(samples, C, *spatial)`` or ``(samples, features)``, see ``input_shape``.
        y : array_like
            ``(samples,)`` or ``(samples, outputs)`` numbers.

        Returns
        -------
        ConvRegressor
            The estimator itself.

        Raises
        ------
        ValueError
            If the arrays are not as described, or hold NaN or infinity.
        """
        samples, y = _validation.validate_data(
            self, X, y, dtype="numeric", allow_nd=True, multi_output=True, y_numeric=True
        )
        targets = np.asarray(y, np.float64)
        self._one_column = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        self._target_mean, deviation = targets.mean(0), targets.std(0)
        self._target_deviation = np.where(deviation == 0, 1.0, deviation)
        scaled = ((targets - self._target_mean) / self._target_deviation).astype(np.float32)
        return self._fit(samples, scaled, scaled.shape[1], nn.MSELoss(), None)

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the numbers of each sample, in the shape of ``y``."""
        outputs = self._outputs(X)
        y: NDArray[np.float64] = outputs * self._target_deviation + self._target_mean
        return y[:, 0] if self._one_column else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
