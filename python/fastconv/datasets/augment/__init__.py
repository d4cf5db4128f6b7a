"""Augmentation: a batch of images distorted at random, each image in its own way.

A function of this module returns a step, ``step(images, rng)``, that takes and returns ``(N, C, H, W)`` floating-point
images and takes all its chance from ``rng``. `pipeline` makes of steps what `fastconv.train.fit` takes as ``augment``,
which gives each batch a generator of its own, in threads ahead of the training: one seed, one training.

Examples
--------
>>> from fastconv.datasets import augment
>>> steps = augment.pipeline(augment.affine(rotation=10), augment.flip(), mix=augment.mixup(0.2, classes=10))
"""

from .colour import blur, brightness, channel_shuffle, contrast, noise
from .geometry import affine, crop, flip, rotate, scale, shift, symmetries, symmetry
from .mixing import cutmix, mixup
from .occlusion import erase, glare, pattern, rain
from .step import Step, pipeline

__all__ = [
    "Step",
    "affine",
    "blur",
    "brightness",
    "channel_shuffle",
    "contrast",
    "crop",
    "cutmix",
    "erase",
    "flip",
    "glare",
    "mixup",
    "noise",
    "pattern",
    "pipeline",
    "rain",
    "rotate",
    "scale",
    "shift",
    "symmetries",
    "symmetry",
]
