"""Pictures to learn from, read from this machine: nothing is downloaded.

A reader that does not find its files says which package or files to get and where to put them. `augment` distorts
batches at random, `preprocess` brings values into shape.
"""

from . import augment, preprocess
from .digits import DigitSplit, digits_8x8, fashion_mnist, find_mnist, load_digits, mnist, mnist_5000, read_idx
from .galaxies import Galaxies, galaxy_zoo
from .pictures import ImageFolder, cifar10, image_folder
from .split import ImageSplit
from .stand_ins import digits_on_photographs, drawn_galaxies

__all__ = [
    "DigitSplit",
    "Galaxies",
    "ImageFolder",
    "ImageSplit",
    "augment",
    "cifar10",
    "digits_8x8",
    "digits_on_photographs",
    "drawn_galaxies",
    "fashion_mnist",
    "find_mnist",
    "galaxy_zoo",
    "image_folder",
    "load_digits",
    "mnist",
    "mnist_5000",
    "preprocess",
    "read_idx",
]
