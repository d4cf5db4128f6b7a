"""Kernels that people thought of before networks learned their own, on a photograph."""

from __future__ import annotations

import numpy as np
from example import options
from fastconv import kernels
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

output, small = options(__doc__)
photo = load_sample_image("china.jpg")[100:340, 80:400] / np.float32(255)
grey = photo.mean(2)

horizontal, vertical = kernels.apply(grey, kernels.sobel("x")), kernels.apply(grey, kernels.sobel("y"))
pictures = {
    "the photograph": photo,
    "Gaussian blur, 5 x 5, five times": photo,
    "sharpened": kernels.apply(photo, kernels.sharpen()),
    "unsharp mask": kernels.apply(photo, kernels.unsharp_mask()),
    "edges (Laplacian of 8 neighbours)": np.abs(kernels.apply(grey, kernels.edge(3))),
    "slope (Sobel along both axes)": np.hypot(horizontal, vertical) / 4,
}
for _ in range(5):
    name = "Gaussian blur, 5 x 5, five times"
    pictures[name] = kernels.apply(pictures[name], kernels.gaussian_blur(5))

figure = Figure(figsize=(9.6, 5.4), layout="constrained")
for axes, (name, picture) in zip(figure.subplots(2, 3).ravel(), pictures.items(), strict=True):
    axes.imshow(picture.clip(0, 1), cmap="gray", vmin=0, vmax=1)
    axes.set_title(name, fontsize=10)
    axes.set_axis_off()
figure.savefig(output / "classical-kernels.png", dpi=60 if small else 75)

detail = {name: float(np.abs(np.diff(picture, axis=1)).mean()) for name, picture in list(pictures.items())[:4]}
for name, value in detail.items():
    print(f"mean difference between neighbours, {name}: {value:.4f}")
