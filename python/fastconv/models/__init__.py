"""Known networks, as functions that build them.

Each takes ``data_format``, ``dtype`` and ``rng`` as the layers do, and returns a `fastconv.nn.Module`; where
torchvision has the network, the names of its ``state_dict`` are the same, so that its weights load as they are.
"""

from .alexnet import alexnet
from .autoencoder import conv_autoencoder
from .galaxy import GALAXY_QUESTIONS, DecisionTree, Question, galaxy_net
from .lenet import lenet5
from .pooled import pooled_net
from .resnet import resnet18, resnet50
from .xception import mini_xception, xception

__all__ = [
    "GALAXY_QUESTIONS",
    "DecisionTree",
    "Question",
    "alexnet",
    "conv_autoencoder",
    "galaxy_net",
    "lenet5",
    "mini_xception",
    "pooled_net",
    "resnet18",
    "resnet50",
    "xception",
]
