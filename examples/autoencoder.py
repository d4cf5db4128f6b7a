"""Digits through a few numbers and back: what a network keeps when it must be brief."""

from __future__ import annotations

import numpy as np
from example import options
from fastconv import datasets, nn, optim, train, visualize
from fastconv.datasets.preprocess import to_network
from fastconv.models import conv_autoencoder
from matplotlib.figure import Figure

output, small = options(__doc__)
digits = datasets.digits_8x8() if small else datasets.load_digits()
images, held_out = to_network(digits.train_images), to_network(digits.test_images)
size, latent, epochs = images.shape[2], (8 if small else 16), (10 if small else 15)

model = conv_autoencoder(latent=latent, image_size=size, rng=np.random.default_rng(0))
adam = optim.Adam(model.parameters(), lr=3e-3)
history = train.fit(
    model, images, images, nn.MSELoss(), adam, epochs=epochs, schedule=optim.CosineAnnealingLR(adam, epochs),
    validation=(held_out, held_out),
    on_epoch=lambda epoch: print(f"epoch {epoch['epoch']}: mean squared error {epoch['val_loss']:.4f}"),
)  # fmt: skip

# Those who only knew the mean of all digits would be off by their variance.
variance = float(((held_out - images.mean(0)) ** 2).mean())
share = history[-1]["val_loss"] / variance
print(f"{size**2} pixels -> {latent} numbers -> {size**2} pixels: the error is {share:.0%} of the digits' variance")

ten = [int(np.flatnonzero(digits.test_labels == digit)[0]) for digit in range(10)]
back = train.predict(model, held_out[ten])
figure = Figure(figsize=(9, 2.2), layout="constrained")
axes = figure.subplots()
axes.imshow(
    visualize.montage(np.concatenate([held_out[ten, 0], back[:, 0]]), columns=10), cmap="gray_r", vmin=0, vmax=1
)
axes.set_title("held-out digits, and what came back", fontsize=10)
axes.set_axis_off()
figure.savefig(output / "autoencoder.png", dpi=60 if small else 110)
