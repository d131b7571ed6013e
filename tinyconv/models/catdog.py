"""The cats-and-dogs networks: convolution + batch norm + ReLU + pooling, then fully connected."""

from __future__ import annotations

from tinyconv import nn
from tinyconv.errors import ShapeError


def catdog(
    num_classes: int = 2, size: int = 256, in_channels: int = 3, conv_bias: bool = True
) -> nn.Sequential:
    """5 convolutions and 4 max pools, then 4 fully connected layers with tanh between them.

    Takes (N, in_channels, size, size) for any size from 16; conv_bias=False leaves out the
    convolutions' biases, which the batch norms behind them cancel anyway. Raises ShapeError for a
    smaller size.
    """
    if size < 16:
        raise ShapeError(f"catdog: size {size} found, its four poolings need at least 16")
    widths = (in_channels, 32, 64, 128, 256, 256)
    layers: list[nn.Module] = []
    for i in range(5):
        layers += _block(widths[i], widths[i + 1], padding=1, conv_bias=conv_bias)
        if i < 4:
            layers.append(nn.MaxPool2d(2))
    features = 256 * (size // 16) ** 2
    layers.append(nn.Flatten())
    for inputs, outputs in ((features, 256), (256, 128), (128, 32)):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(32, num_classes))


def catdog_notebook(
    num_classes: int = 2, size: int = 256, in_channels: int = 3, conv_bias: bool = True
) -> nn.Sequential:
    """6 convolutions without padding, each with batch norm, ReLU and max pool; 3 linear layers.

    Takes (N, in_channels, size, size), 256 in the original: 512 * 2 * 2 features. Raises ShapeError
    for a size of which nothing is left.
    """
    widths = (in_channels, 64, 128, 256, 256, 512, 512)
    layers: list[nn.Module] = []
    side = size
    for i in range(6):
        layers += _block(widths[i], widths[i + 1], padding=0, conv_bias=conv_bias)
        layers.append(nn.MaxPool2d(2))
        side = (side - 2) // 2
    if side < 1:
        raise ShapeError(f"catdog_notebook: size {size} found, its six poolings need at least 190")
    layers += [nn.Flatten(), nn.Linear(512 * side**2, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, num_classes))


def _block(inputs: int, outputs: int, padding: int, conv_bias: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=padding, bias=conv_bias)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
