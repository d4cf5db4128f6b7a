"""A digit classifier that ends in global average pooling, so that it can say where it sees what."""

from __future__ import annotations

import numpy as np
from example import options
from fastconv import datasets, models, nn, optim, train, visualize
from fastconv.datasets import augment
from fastconv.datasets.preprocess import to_network

output, small = options(__doc__)
digits = datasets.digits_8x8() if small else datasets.load_digits()
images, held_out = to_network(digits.train_images), to_network(digits.test_images)
model = models.pooled_net(rng=np.random.default_rng(0))
print(model.summary((1, *images.shape[1:])))

epochs = 3 if small else 8
adam = optim.Adam(model.parameters(), lr=5e-3)
history = train.fit(
    model, images, digits.train_labels, nn.CrossEntropyLoss(), adam, epochs=epochs, seed=0,
    augment=augment.pipeline(augment.affine(rotation=10, shift=0.05)), schedule=optim.CosineAnnealingLR(adam, epochs),
    validation=(held_out, digits.test_labels), metrics={"accuracy": train.accuracy},
    on_epoch=lambda epoch: print(f"epoch {epoch['epoch']}: {100 * epoch['val_accuracy']:.2f} % read right"),
)  # fmt: skip

read = train.predict(model, held_out).argmax(1)
right = [int(np.flatnonzero((digits.test_labels == digit) & (read == digit))[0]) for digit in (0, 2, 4, 5, 7)]
pictures, answers = held_out[right], read[right]
maps = {
    "activation map": visualize.class_activation_map(model, pictures, answers),
    "Grad-CAM": visualize.grad_cam(model, pictures, answers),
    "covered": visualize.occlusion_map(model, pictures, answers, size=pictures.shape[2] // 5),
}
figure = visualize.heatmaps_figure(pictures[:, 0], maps, "Why these are a 0, 2, 4, 5 and 7")
figure.savefig(output / "heatmaps.png", dpi=60 if small else 100)

# Covering what the activation maps show must cost the answers more than covering as much elsewhere.
hot = maps["activation map"] >= np.quantile(maps["activation map"], 0.8, axis=(1, 2), keepdims=True)
print(
    f"loss of probability where a square covers a hot fifth of the map: {maps['covered'][hot].mean():.4f}, "
    f"elsewhere {maps['covered'][~hot].mean():.4f}"
)
