"""The networks of `fastconv.models` in plain PyTorch, with torchvision's names where torchvision has them.

Written from the papers and from torchvision's and Keras's documentation, a layer a line, so that they can be read
beside ours; torchvision itself is not needed.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from layer_cases import TorchResidual, TorchSeparable
from torch import nn


def lenet5(num_classes=10, in_channels=1, form="modern"):
    activation, pool = (nn.ReLU, nn.MaxPool2d) if form == "modern" else (nn.Tanh, nn.AvgPool2d)
    name = "relu" if form == "modern" else "tanh"
    layers = OrderedDict({
        "conv1": nn.Conv2d(in_channels, 6, 5, padding=2), f"{name}1": activation(), "pool1": pool(2),
        "conv2": nn.Conv2d(6, 16, 5), f"{name}2": activation(), "pool2": pool(2), "flatten": nn.Flatten(),
        "fc1": nn.Linear(400, 120), f"{name}3": activation(), "fc2": nn.Linear(120, 84), f"{name}4": activation(),
        "fc3": nn.Linear(84, num_classes),
    })  # fmt: skip
    return nn.Sequential(layers)


def alexnet(num_classes=1000, in_channels=3, dropout=0.5):
    net = nn.Sequential()
    net.features = nn.Sequential(
        nn.Conv2d(in_channels, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    net.avgpool = nn.AdaptiveAvgPool2d((6, 6))
    net.flatten = nn.Flatten()
    net.classifier = nn.Sequential(
        nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
        nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, num_classes),
    )  # fmt: skip
    return net


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, channels, width, stride, downsample):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels, width, stride, downsample):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))).relu()


def resnet(block, depths, num_classes=1000, in_channels=3, form="imagenet", width=64):
    first = nn.Conv2d(in_channels, width, *((7, 2, 3) if form == "imagenet" else (3, 1, 1)), bias=False)
    layers = OrderedDict(conv1=first, bn1=nn.BatchNorm2d(width), relu=nn.ReLU())
    if form == "imagenet":
        layers["maxpool"] = nn.MaxPool2d(3, 2, 1)
    channels = width
    for i, depth in enumerate(depths):
        out, stage = width * 2**i * block.expansion, []
        for j in range(depth):
            stride = 2 if i and not j else 1
            downsample = None
            if stride != 1 or channels != out:
                downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            stage.append(block(channels, width * 2**i, stride, downsample))
            channels = out
        layers[f"layer{i + 1}"] = nn.Sequential(*stage)
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(channels, num_classes)}
    return nn.Sequential(layers)


def resnet18(*args, **keywords):
    return resnet(BasicBlock, (2, 2, 2, 2), *args, **keywords)


def resnet50(*args, **keywords):
    return resnet(Bottleneck, (3, 4, 6, 3), *args, **keywords)


class Same(nn.Module):
    """A layer with Keras's padding: outputs of size ceil(in / stride), the odd pad at the end."""

    def __init__(self, layer, kernel, stride, fill):
        super().__init__()
        self.layer, self.kernel, self.stride, self.fill = layer, kernel, stride, fill
        if hasattr(layer, "weight"):
            self.weight, self.bias = layer.weight, layer.bias
            del self.layer  # its parameters stand here, under the names that ours have
            self.__dict__["layer"] = layer

    def forward(self, x):
        pads = []
        for size in map(int, reversed(x.shape[2:])):  # numbers also where the exporter to ONNX traces sizes
            total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        x = nn.functional.pad(x, pads, value=self.fill)
        if isinstance(self.layer, nn.Conv2d):
            return nn.functional.conv2d(x, self.weight, self.bias, self.stride)
        return self.layer(x)


class Scale(nn.Module):
    def forward(self, x):
        return x / 255


def _same_conv(channels, out, kernel, stride=1, bias=True):
    return Same(nn.Conv2d(channels, out, kernel, stride, bias=bias), kernel, stride, 0.0)


def _norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _separable(channels, out, bias):
    return TorchSeparable(2, channels, out, 3, padding=1, bias=bias), _norm(out)


def _pool():
    return Same(nn.MaxPool2d(3, 2), 3, 2, float("-inf"))


def xception(num_classes=1000, in_channels=3, dropout=0.5):
    layers = OrderedDict(
        rescaling=Scale(),
        conv1=_same_conv(in_channels, 32, 3, 2), bn1=_norm(32), relu1=nn.ReLU(),
        conv2=_same_conv(32, 64, 3), bn2=_norm(64), relu2=nn.ReLU(),
    )  # fmt: skip
    channels = 64
    for i, out in enumerate((128, 256, 512, 728)):
        branch = nn.Sequential(
            nn.ReLU(), *_separable(channels, out, True), nn.ReLU(), *_separable(out, out, True), _pool()
        )
        layers[f"block{i + 1}"] = TorchResidual(branch, _same_conv(channels, out, 1, 2))
        channels = out
    layers["conv3"], layers["bn3"] = _separable(channels, 1024, True)
    layers |= {
        "relu3": nn.ReLU(), "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(),
        "dropout": nn.Dropout(dropout), "fc": nn.Linear(1024, num_classes),
    }  # fmt: skip
    return nn.Sequential(layers)


def mini_xception(num_classes=7, in_channels=1):
    layers = OrderedDict(
        conv1=nn.Conv2d(in_channels, 8, 3, bias=False), bn1=_norm(8), relu1=nn.ReLU(),
        conv2=nn.Conv2d(8, 8, 3, bias=False), bn2=_norm(8), relu2=nn.ReLU(),
    )  # fmt: skip
    channels = 8
    for i, out in enumerate((16, 32, 64, 128)):
        branch = nn.Sequential(*_separable(channels, out, False), nn.ReLU(), *_separable(out, out, False), _pool())
        shortcut = nn.Sequential(_same_conv(channels, out, 1, 2, bias=False), _norm(out))
        layers[f"block{i + 1}"] = TorchResidual(branch, shortcut)
        channels = out
    layers |= {
        "classes": nn.Conv2d(channels, num_classes, 3, padding=1),
        "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(),
    }  # fmt: skip
    return nn.Sequential(layers)


def conv_autoencoder(in_channels=1, latent=32, image_size=28, width=16):
    encoder = OrderedDict(
        conv1=nn.Conv2d(in_channels, width, 4, 2, 1), relu1=nn.ReLU(),
        conv2=nn.Conv2d(width, 2 * width, 4, 2, 1), relu2=nn.ReLU(),
        conv3=nn.Conv2d(2 * width, latent, image_size // 4),
    )  # fmt: skip
    decoder = OrderedDict(
        conv3=nn.ConvTranspose2d(latent, 2 * width, image_size // 4), relu2=nn.ReLU(),
        conv2=nn.ConvTranspose2d(2 * width, width, 4, 2, 1), relu1=nn.ReLU(),
        conv1=nn.ConvTranspose2d(width, in_channels, 4, 2, 1), sigmoid=nn.Sigmoid(),
    )  # fmt: skip
    return nn.Sequential(OrderedDict(encoder=nn.Sequential(encoder), decoder=nn.Sequential(decoder)))


class Tree(nn.Module):
    """The Galaxy Zoo challenge's decision tree, question by question as its page lists them."""

    def forward(self, x):
        q1, q2, q3, q4, q5, q6, q7, q8, q9, q10, q11 = (
            part.softmax(1) for part in x.split([3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6], 1)
        )
        smooth, disk = q1[:, :1], q1[:, 1:2]
        edge_on, face_on = disk * q2[:, :1], disk * q2[:, 1:]
        arms, odd = face_on * q4[:, :1], q6[:, :1]
        return torch.cat(
            [q1, disk * q2, face_on * q3, face_on * q4, face_on * q5, q6, smooth * q7, odd * q8, edge_on * q9,
             arms * q10, arms * q11], 1
        )  # fmt: skip


class Crop(nn.Module):
    def forward(self, x):
        return x[:, :, 108:315, 108:315]


def galaxy_net(image_size=424, in_channels=3, dropout=0.5):
    layers = OrderedDict(crop=Crop(), reduce=nn.AvgPool2d(3)) if image_size == 424 else OrderedDict()
    layers |= {
        "conv1": nn.Conv2d(in_channels, 32, 6), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(32, 64, 5), "relu2": nn.ReLU(), "pool2": nn.MaxPool2d(2),
        "conv3": nn.Conv2d(64, 128, 3), "relu3": nn.ReLU(),
        "conv4": nn.Conv2d(128, 128, 3), "relu4": nn.ReLU(), "pool4": nn.MaxPool2d(2), "flatten": nn.Flatten(),
        "dropout1": nn.Dropout(dropout), "fc1": nn.Linear(3200, 512), "relu5": nn.ReLU(),
        "dropout2": nn.Dropout(dropout), "fc2": nn.Linear(512, 37), "tree": Tree(),
    }  # fmt: skip
    return nn.Sequential(layers)
