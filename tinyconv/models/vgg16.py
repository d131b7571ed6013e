"""VGG16: thirteen 3x3 convolutions in five blocks, then three fully connected layers."""

from __future__ import annotations

from tinyconv import nn
from tinyconv.errors import ShapeError

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(
    num_classes: int = 1000, size: int = 224, in_channels: int = 3, hidden: int = 4096
) -> nn.Sequential:
    """Blocks of convolutions with ReLU and a 2x2 max pool, 7x7 means, hidden, hidden, num_classes.

    Takes (N, in_channels, H, W) from 32 pixels on; `size` is what it is meant for, 224 with public
    weights. model[:-1] gives the features (N, 25088). The keys are torchvision's, whose weights
    expect RGB images with ImageNet's mean and standard deviation; for Keras' weights see
    io.read_keras. The initial weights are the layers' defaults: from them a network without batch
    norm trains badly. Raises ShapeError for a smaller size. Source: Simonyan and Zisserman, "Very
    Deep Convolutional Networks for Large-Scale Image Recognition", 2014.
    """
    if size < 32:
        raise ShapeError(f"vgg16: size {size} found, its five poolings need at least 32")
    features: list[nn.Module] = []
    channels = in_channels
    for block in BLOCKS:
        for outputs in block:
            features += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
            channels = outputs
        features.append(nn.MaxPool2d(2))
    return nn.Sequential(
        {
            "features": nn.Sequential(*features),
            "avgpool": nn.AdaptiveAvgPool2d((7, 7)),
            "flatten": nn.Flatten(),
            "classifier": nn.Sequential(
                nn.Linear(channels * 7 * 7, hidden),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(hidden, num_classes),
            ),
        }
    )
