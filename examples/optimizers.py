"""Five update rules on one problem: small handwritten digits, the same first weights, the same batches."""

from __future__ import annotations

import numpy as np
from example import options
from fastconv import datasets, nn, optim, train
from fastconv.datasets.preprocess import to_network
from fastconv.sklearn import small_network
from matplotlib.figure import Figure

output, small = options(__doc__)
digits = datasets.digits_8x8()
images, held_out = to_network(digits.train_images), to_network(digits.test_images)
epochs = 2 if small else 15

RULES = {
    "SGD": lambda parameters: optim.SGD(parameters, lr=0.1),
    "SGD with momentum": lambda parameters: optim.SGD(parameters, lr=0.03, momentum=0.9, nesterov=True),
    "RMSprop": lambda parameters: optim.RMSprop(parameters, lr=1e-3),
    "Adam": lambda parameters: optim.Adam(parameters, lr=2e-3),
    "AdamW": lambda parameters: optim.AdamW(parameters, lr=2e-3, weight_decay=0.05),
}

figure = Figure(figsize=(7, 4.2), layout="constrained")
axes = figure.subplots()
for name, rule in RULES.items():
    model = small_network((1, 8, 8), 10, np.random.default_rng(0))
    history = train.fit(
        model, images, digits.train_labels, nn.CrossEntropyLoss(), rule(model.parameters()), epochs=epochs,
        validation=(held_out, digits.test_labels), metrics={"accuracy": train.accuracy},
    )  # fmt: skip
    print(f"{name:20} loss {history[-1]['loss']:.4f}, held out {100 * history[-1]['val_accuracy']:.1f} % right")
    axes.semilogy(history.column("epoch"), history.column("loss"), label=name)
axes.set_xlabel("epoch")
axes.set_ylabel("loss")
axes.legend()
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(output / "optimizers.png", dpi=60 if small else 110)
