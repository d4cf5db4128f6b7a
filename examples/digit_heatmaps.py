"""A digit classifier that ends in global average pooling, so that it can say where it sees what."""

from __future__ import annotations

import numpy as np
from example import options
from fastconv import datasets, nn, optim, train, visualize
from fastconv.datasets import augment
from fastconv.datasets.preprocess import to_network

output, small = options(__doc__)
digits = datasets.digits_8x8() if small else datasets.load_digits()
images, held_out = to_network(digits.train_images), to_network(digits.test_images)
rng = np.random.default_rng(0)


def stage(channels, width):
    """A convolution of 3 x 3, normalised."""
    return nn.Conv2d(channels, width, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(width), nn.ReLU()


model = nn.Sequential(
    *stage(1, 16), *stage(16, 16), nn.MaxPool2d(2), *stage(16, 32), *stage(32, 32),
    nn.GlobalAvgPool(), nn.Linear(32, 10, rng=rng),
)  # fmt: skip
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
for digit in range(10):
    right = np.flatnonzero((digits.test_labels == digit) & (read == digit))
    if digit in (2, 5, 7) and len(right):
        picture = held_out[right[:1]]
        figure = visualize.heatmaps_figure(
            picture[0, 0],
            {
                "class activation map": visualize.class_activation_map(model, picture, digit)[0],
                "Grad-CAM": visualize.grad_cam(model, picture, digit)[0],
                "occlusion": visualize.occlusion_map(model, picture, digit, size=picture.shape[2] // 5)[0],
            },
            f"Why this is a {digit}",
        )
        figure.savefig(output / f"heatmaps-{digit}.png", dpi=60 if small else 110)
