"""Training: `fit` goes through the data again and again, validates, keeps the best weights, and can be interrupted."""

from .batches import Augment, Batches
from .fit import fit
from .history import History
from .predict import accuracy, predict

__all__ = ["Augment", "Batches", "History", "accuracy", "fit", "predict"]
