"""What volunteers would answer about a galaxy: the Galaxy Zoo challenge's files, if they lie on the machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from example import options
from fastconv import datasets, models, nn, optim, train
from fastconv.datasets import augment
from fastconv.datasets.preprocess import to_network
from matplotlib.figure import Figure

output, small = options(__doc__)
count = 60 if small else 750
try:
    galaxies = datasets.galaxy_zoo(limit=count)
    print("galaxies of the challenge")
except FileNotFoundError:
    with tempfile.TemporaryDirectory() as folder:
        datasets.drawn_galaxies(Path(folder), count)
        galaxies = datasets.galaxy_zoo(folder)
    print("drawn galaxies, which stand in for those of the challenge")
images, answers = to_network(galaxies.images), galaxies.answers
learn, held_out = slice(count // 5, None), slice(count // 5)

# A galaxy has no up and no down, so each is shown in any of its eight symmetries.
model = models.galaxy_net(image_size=69, dropout=0.3, rng=np.random.default_rng(0))
epochs, batch_size = (4 if small else 10), 16
adam = optim.Adam(model.parameters(), lr=5e-4)
train.fit(
    model, images[learn], answers[learn], nn.MSELoss(), adam, epochs=epochs, batch_size=batch_size,
    augment=augment.pipeline(augment.symmetry()), schedule=optim.CosineAnnealingLR(adam, epochs),
    validation=(images[held_out], answers[held_out]),
    on_epoch=lambda epoch: print(f"epoch {epoch['epoch']}: error {epoch['val_loss'] ** 0.5:.4f}", flush=True),
)  # fmt: skip


def error(told):
    """Return the challenge's measure: the root of the mean squared difference."""
    return float(np.sqrt(np.mean((told - answers[held_out]) ** 2)))


once = train.predict(model, images[held_out])
sides = map(np.ascontiguousarray, augment.symmetries(images[held_out]))
eight = np.mean([train.predict(model, side) for side in sides], 0)
print(f"error of the mean answers {error(answers[learn].mean(0)):.4f}, of the network {error(once):.4f}, "
      f"of its mean over eight symmetries {error(eight):.4f}")  # fmt: skip
first = eight[:, :3].sum(1)
print(f"the answers to the first question sum to 1 within {np.abs(first - 1).max():.0e}")

figure = Figure(figsize=(9.6, 3.6), layout="constrained")
questions = ("smooth", "disk", "star")
for axes, i in zip(figure.subplots(1, 4), range(4), strict=True):
    axes.imshow(galaxies.images[i])
    axes.set_axis_off()
    lines = [f"{name}: {100 * eight[i, k]:.0f} % ({100 * answers[i, k]:.0f} %)" for k, name in enumerate(questions)]
    lines.append(f"spiral: {100 * eight[i, 7]:.0f} % ({100 * answers[i, 7]:.0f} %)")
    axes.set_title("\n".join(lines), fontsize=9)
figure.suptitle("What the network says, and what was answered", fontsize=11)
figure.savefig(output / "galaxies.png", dpi=60 if small else 90)
