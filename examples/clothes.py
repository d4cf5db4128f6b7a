"""LeNet-5 tells clothes apart: Fashion-MNIST, 60,000 pictures to learn from and 10,000 held out."""

from __future__ import annotations

import time

import numpy as np
from example import options
from fastconv import datasets, models, nn, optim, train, visualize
from fastconv.datasets import augment
from fastconv.datasets.preprocess import to_network
from sklearn.metrics import confusion_matrix

output, small = options(__doc__)
clothes = datasets.fashion_mnist()
images, held_out = to_network(clothes.train_images), to_network(clothes.test_images)
epochs, batch_size = (4, 64) if small else (18, 64)

model = models.lenet5(rng=np.random.default_rng(0))
adam = optim.Adam(model.parameters(), lr=2e-3)
began = time.perf_counter()
train.fit(
    model, images, clothes.train_labels, nn.CrossEntropyLoss(), adam, epochs=epochs, batch_size=batch_size,
    augment=augment.pipeline(augment.flip()), schedule_each="batch",
    schedule=optim.CosineAnnealingLR(adam, epochs * -(-len(images) // batch_size)),
    validation=(held_out, clothes.test_labels), metrics={"accuracy": train.accuracy},
    on_epoch=lambda epoch: print(f"epoch {epoch['epoch']}: {100 * epoch['val_accuracy']:.2f} % right", flush=True),
)  # fmt: skip
print(f"{time.perf_counter() - began:.0f} s")

told = train.predict(model, held_out).argmax(1)
matrix = confusion_matrix(clothes.test_labels, told, labels=range(10))
figure = visualize.confusion_figure(matrix, clothes.classes)
figure.savefig(output / "clothes.png", dpi=60 if small else 90)
mixed_up = np.where(np.eye(10, dtype=bool), 0, matrix)
is_, called = np.unravel_index(mixed_up.argmax(), mixed_up.shape)
print(f"most often, a {clothes.classes[is_]} is called a {clothes.classes[called]}: {mixed_up[is_, called]} times")
