"""Which network? Five folds, each class in its share, and scikit-learn's own tools."""

from __future__ import annotations

from example import options
from fastconv.sklearn import ConvClassifier
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_, small = options(__doc__)
images, labels = load_digits(return_X_y=True)
if small:
    images, labels = images[:300], labels[:300]

network = ConvClassifier(input_shape=(1, 8, 8), epochs=3 if small else 20, random_state=0)
candidates = {
    "the most frequent class": DummyClassifier(),
    "a linear model": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "a convolutional network": network,
    "the same, trained for a third of the time": ConvClassifier(
        **network.get_params() | {"epochs": network.epochs // 3}
    ),
}
folds = StratifiedKFold(5, shuffle=True, random_state=0)
for name, estimator in candidates.items():
    scores = cross_val_score(estimator, images, labels, cv=folds)
    print(f"{name:44} {100 * scores.mean():5.2f} % ± {100 * scores.std():.2f}")
