"""A small training that a test kills and starts again: ``python training_script.py RUN SECONDS``.

Everything that has a state is in it: batch norm, dropout, spectral norm, Adam, a schedule by batch, augmentation in
worker threads. It prints a line for each batch, and at the end a digest of weights and losses.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np
from fastconv import nn, optim, train


def build():
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, rng=rng),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout2d(0.2, rng=np.random.default_rng(1)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3, rng=np.random.Generator(np.random.MT19937(2))),
        nn.utils.spectral_norm(nn.Linear(64, 3, rng=rng), rng=rng),
    )


def images():
    """Bars along one axis or the other, or neither, in noise."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 60)
    x = 0.5 * rng.standard_normal((60, 1, 8, 8), dtype=np.float32)
    x[labels == 1, :, 3] += 1
    x[labels == 2, :, :, 3] += 1
    return x, labels


def noisy(x, y, rng):
    return x + np.float32(0.1) * rng.standard_normal(x.shape, dtype=np.float32), y


class Loud(nn.CrossEntropyLoss):
    """Tells that a batch is being learned from."""

    def __call__(self, y, target):
        print("batch", flush=True)
        return super().__call__(y, target)


def run(folder, save_seconds=0.0, epochs=4, resume=True, loss=nn.CrossEntropyLoss, **keywords):
    """Train, and return model, history and the digest of what must be the same in every run."""
    model, (x, y) = build(), images()
    adam = optim.Adam(model.parameters(), lr=0.02)
    history = train.fit(
        model,
        x[:48],
        y[:48],
        loss(),
        adam,
        epochs=epochs,
        batch_size=8,
        seed=5,
        augment=noisy,
        workers=2,
        schedule=optim.CosineAnnealingLR(adam, 24),
        schedule_each="batch",
        validation=(x[48:], y[48:]),
        metrics={"accuracy": train.accuracy},
        run=folder,
        resume=resume,
        save_seconds=save_seconds,
        progress=False,
        **keywords,
    )
    digest = hashlib.sha256()
    for name, array in model.state_dict().items():
        digest.update(name.encode() + array.tobytes())
    for epoch in history:
        digest.update(repr([value for name, value in epoch.items() if name != "seconds"]).encode())
    return model, history, digest.hexdigest()


if __name__ == "__main__":
    print(run(sys.argv[1], float(sys.argv[2]), loss=Loud)[2])
