"""Small colour pictures: a linear model, AlexNet, ResNet-18 and mini-Xception. CIFAR-10, if it lies on the machine."""

from __future__ import annotations

import time

import numpy as np
from example import options
from fastconv import analysis, datasets, models, nn, optim, train
from fastconv.datasets import augment
from fastconv.datasets.preprocess import Standardize, to_network
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

output, small = options(__doc__)
try:
    pictures = datasets.cifar10()
except FileNotFoundError:
    pictures = datasets.digits_on_photographs()
print(pictures.source)
few = slice(0, 400 if small else 10_000)
labels, held_out_labels = pictures.train_labels[few], pictures.test_labels[few]
standardize = Standardize().fit(to_network(pictures.train_images[few]))
images, held_out = (
    standardize.transform(to_network(each[few])) for each in (pictures.train_images, pictures.test_images)
)


def alexnet(rng):
    """AlexNet's convolutions, of pictures twice as large as these; its two layers of 4,096 are left out."""
    whole = models.alexnet(10, rng=rng)
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        whole["features"],
        nn.Flatten(),
        nn.Dropout(0.5, rng=rng),
        nn.Linear(256, 10, rng=rng),
    )


NETWORKS = {
    "AlexNet": (alexnet, 5e-4),
    "ResNet-18": (lambda rng: models.resnet18(10, form="small", width=8 if small else 16, rng=rng), 3e-3),
    "mini-Xception": (lambda rng: models.mini_xception(10, 3, rng=rng), 5e-3),
}
views = augment.pipeline(augment.affine(rotation=10, shift=0.08, scale=0.1, fill="reflect"))
epochs, batch_size = (1 if small else 10), 50

linear = LogisticRegression(max_iter=200, C=1e-4).fit(images.reshape(len(images), -1), labels)
print(f"{'linear model':14} {100 * linear.score(held_out.reshape(len(held_out), -1), held_out_labels):5.2f} % right")
curves = {}
for name, (build, rate) in NETWORKS.items():
    model = build(np.random.default_rng(0))
    adam, began = optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2), time.perf_counter()
    history = train.fit(
        model, images, labels, nn.CrossEntropyLoss(), adam, epochs=epochs, batch_size=batch_size, augment=views,
        schedule=optim.CosineAnnealingLR(adam, epochs * -(-len(images) // batch_size)), schedule_each="batch",
        validation=(held_out, held_out_labels), metrics={"accuracy": train.accuracy},
    )  # fmt: skip
    print(
        f"{name:14} {100 * history[-1]['val_accuracy']:5.2f} % right after {time.perf_counter() - began:.0f} s; "
        f"{analysis.count_parameters(model):,} weights, "
        f"{analysis.count_macs(model, (1, *images.shape[1:])) / 1e6:.1f} million multiply-adds a picture",
        flush=True,
    )
    curves[name] = history

figure = Figure(figsize=(9.5, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
chosen = np.concatenate([np.flatnonzero(held_out_labels == label)[:3] for label in range(10)])
tiles = pictures.test_images[few][chosen].reshape(10, 3, 32, 32, 3)
left.imshow(tiles.transpose(1, 2, 0, 3, 4).reshape(96, 320, 3))
left.set_axis_off()
for name, history in curves.items():
    right.plot(history.column("epoch"), 100 * np.array(history.column("val_accuracy")), label=name)
right.set(xlabel="epoch", ylabel="held-out pictures told right (%)", ylim=(0, 100))
right.legend()
right.spines[["top", "right"]].set_visible(False)
figure.savefig(output / "colour-images.png", dpi=60 if small else 90)
