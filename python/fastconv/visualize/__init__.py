"""Look inside a network: arrays of what it has learnt and sees, and matplotlib figures of them.

Figures need matplotlib (``pip install 'fastconv[demo]'``), which is imported only when one is made; they belong to no
window and no backend: save them with ``figure.savefig`` or show them in a notebook.
"""

from .attribution import class_activation_map, grad_cam, occlusion_map, overlay
from .figures import (
    confusion_figure,
    feature_maps_figure,
    filters_figure,
    heatmaps_figure,
    misread_figure,
    montage,
    readings_figure,
    training_figure,
)
from .inside import feature_maps, filters

__all__ = [
    "class_activation_map",
    "confusion_figure",
    "feature_maps",
    "feature_maps_figure",
    "filters",
    "filters_figure",
    "grad_cam",
    "heatmaps_figure",
    "misread_figure",
    "montage",
    "occlusion_map",
    "overlay",
    "readings_figure",
    "training_figure",
]
