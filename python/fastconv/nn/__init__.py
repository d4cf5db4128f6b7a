"""Layers with parameters, for NumPy arrays; ``fastconv.functional`` does the computing.

Names, arguments, defaults, first weights and ``state_dict`` are PyTorch's where PyTorch has the layer. Gradients are
explicit: each layer's ``backward`` belongs to its latest forward.
"""

from . import init, utils
from .activation import ELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Step, Tanh
from .containers import Concat, Residual, Sequential
from .conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    SeparableConv1d,
    SeparableConv2d,
    SeparableConv3d,
)
from .dropout import Dropout, Dropout1d, Dropout2d, Dropout3d
from .linear import Linear
from .loss import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from .module import IncompatibleKeys, Module
from .norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    SwitchNorm1d,
    SwitchNorm2d,
    SwitchNorm3d,
)
from .parameter import Parameter
from .pooling import (
    AvgPool,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MinPool,
    MinPool1d,
    MinPool2d,
    MinPool3d,
)
from .reshape import Flatten, Rescaling
from .serialization import load, save
from .summary import Summary
from .upsample import Upsample

__all__ = [
    "ELU",
    "AvgPool",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Concat",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "IncompatibleKeys",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MinPool",
    "MinPool1d",
    "MinPool2d",
    "MinPool3d",
    "Module",
    "Parameter",
    "ReLU",
    "Rescaling",
    "Residual",
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Step",
    "Summary",
    "SwitchNorm1d",
    "SwitchNorm2d",
    "SwitchNorm3d",
    "Tanh",
    "Upsample",
    "init",
    "load",
    "save",
    "utils",
]
