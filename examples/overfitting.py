"""Few digits and a large network: it learns them by heart. Dropout, batch norm and new views of the digits help."""

from __future__ import annotations

import numpy as np
from example import options
from fastconv import datasets, nn, optim, train
from fastconv.datasets import augment
from fastconv.datasets.preprocess import to_network
from matplotlib.figure import Figure

output, small = options(__doc__)
digits = datasets.digits_8x8()
few = slice(100 if small else 150)
images, labels = to_network(digits.train_images)[few], digits.train_labels[few]
held_out = to_network(digits.test_images), digits.test_labels
epochs, width = (40, 16) if small else (60, 32)


def network(norm=False, dropout=0.0):
    """Two convolutions and two linear layers; far more weights than pixels to learn from."""
    rng, layers = np.random.default_rng(0), []
    for channels, out in ((1, width), (width, 2 * width)):
        layers += [nn.Conv2d(channels, out, 3, padding=1, rng=rng), *([nn.BatchNorm2d(out)] if norm else []), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(dropout, rng=rng), nn.Linear(2 * width * 16, 128, rng=rng)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Dropout(dropout, rng=rng), nn.Linear(128, 10, rng=rng))


views = augment.pipeline(augment.affine(rotation=12, shift=0.1, scale=0.1))
WAYS = {
    "nothing": (network(), None),
    "dropout": (network(dropout=0.5), None),
    "batch norm": (network(norm=True), None),
    "batch norm and dropout": (network(norm=True, dropout=0.5), None),
    "and turned, shifted, scaled digits": (network(norm=True, dropout=0.5), views),
}
print(f"{len(images)} digits of 8 x 8, {sum(p.size for p in WAYS['nothing'][0].parameters()):,} weights")

figure = Figure(figsize=(7, 4.2), layout="constrained")
axes = figure.subplots()
for name, (model, augmentation) in WAYS.items():
    adam = optim.Adam(model.parameters(), lr=2e-3)
    history = train.fit(
        model, images, labels, nn.CrossEntropyLoss(), adam, epochs=epochs, batch_size=25, augment=augmentation,
        validation=held_out, metrics={"accuracy": train.accuracy},
    )  # fmt: skip
    known = 100 * train.accuracy(train.predict(model, images), labels)
    print(
        f"{name:36} knows {known:5.1f} % of its digits and {100 * history[-1]['val_accuracy']:5.1f} % of the others, "
        f"whose loss is {history[-1]['val_loss']:.3f}"
    )
    axes.plot(history.column("epoch"), history.column("val_loss"), label=name)
axes.set(xlabel="epoch", ylabel="loss of digits not learned from", ylim=(0, 1.2))
axes.legend()
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(output / "overfitting.png", dpi=60 if small else 100)
