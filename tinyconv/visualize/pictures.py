"""Pictures of the inside of a network as PNG files. They need matplotlib: pip install matplotlib.

A photo is uint8 (H, W, 3) for RGB or (H, W, 1) for grey, at the size that the network takes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyconv import plotting

MOST_CHANNELS = 32
MOST_FILTERS = 64

_Tile = tuple[str, np.ndarray, dict[str, Any]]  # label, image, settings of imshow
_GREY = {"cmap": "gray", "vmin": 0}  # for images without colours; matplotlib ignores it for RGB


def plot_filters(weight: np.ndarray, path: str | os.PathLike[str], title: str = "filters") -> None:
    """The filters of a convolution, (O, C, KH, KW), as tiles, each from its least to its largest.

    With C = 3 a tile is a filter in colour (RGB), else one channel of a filter in grey. Beyond
    MOST_FILTERS tiles the rest is left out, and the title says so.
    """
    if weight.shape[1] == 3:
        filters = weight.transpose(0, 2, 3, 1)
    else:
        filters = weight.reshape(-1, *weight.shape[2:])
    if len(filters) > MOST_FILTERS:
        title += f" (the first {MOST_FILTERS} of {len(filters)})"
    tiles = []
    for number, values in enumerate(filters[:MOST_FILTERS]):
        span = np.ptp(values) or 1
        tiles.append((f"{number}", (values - values.min()) / span, {**_GREY, "vmax": 1}))
    figure, _ = _sheet(tiles)
    plotting.save(figure, path, plotting.plain(title))


def plot_features(
    maps: np.ndarray, photo: np.ndarray, path: str | os.PathLike[str], title: str = "features"
) -> None:
    """The photo and a layer's most active maps for it, (C, h, w), each as a share of its largest.

    Most active are the MOST_CHANNELS whose values differ most over the pixels (standard deviation).
    Blue is below zero, white zero, red above; where nothing is below, dark is zero and yellow most.
    """
    order = np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:MOST_CHANNELS]
    some = f"the {len(order)} most active channels" if len(order) < len(maps) else "all channels"
    title += f"\nthe photo and {some}, by number"
    signed = maps.min() < 0
    settings: dict[str, Any] = {
        "cmap": "bwr" if signed else "viridis",
        "vmin": -1 if signed else 0,
        "vmax": 1,
    }
    tiles: list[_Tile] = [("photo", photo, {**_GREY, "vmax": 255})]
    for channel in order:
        largest = np.abs(maps[channel]).max() or 1
        tiles.append((f"{channel}", maps[channel] / largest, settings))
    figure, axes = _sheet(tiles)
    bar = figure.colorbar(axes.images[-1], ax=axes, shrink=0.5, aspect=30, pad=0.01)
    bar.set_ticks([-1, 0, 1] if signed else [0, 1])
    bar.set_label("share of the largest", fontsize=8)
    plotting.save(figure, path, plotting.plain(title))


def plot_saliency(
    gradient: np.ndarray, photo: np.ndarray, path: str | os.PathLike[str], title: str = "saliency"
) -> None:
    """The photo beside the absolute value of a gradient (C, H, W), its maximum over the channels.

    The brightest half per cent of the pixels looks the same, lest a single one darken all others.
    """
    saliency = np.abs(gradient).max(axis=0)
    figure = plotting.figure(7.6, 3.7)
    left, right = figure.subplots(1, 2)
    _photo(left, photo)
    brightest = np.percentile(saliency, 99.5) or 1
    shown = right.imshow(saliency, cmap="inferno", vmin=0, vmax=brightest)
    right.set_axis_off()
    figure.colorbar(shown, ax=right, shrink=0.8, label="|gradient|")
    plotting.save(figure, path, plotting.plain(title))


def plot_grad_cam(
    heat: np.ndarray, photo: np.ndarray, path: str | os.PathLike[str], title: str = "Grad-CAM"
) -> None:
    """The photo beside itself in grey under a heat map (h, w), enlarged to its size (bilinear)."""
    height, width = photo.shape[:2]
    figure = plotting.figure(7.6, 3.7)
    left, right = figure.subplots(1, 2)
    _photo(left, photo)
    _photo(right, photo.mean(axis=2, keepdims=True))
    share = heat / (heat.max() or 1)
    shown = right.imshow(
        share, cmap="YlOrRd", vmin=0, vmax=1, alpha=0.8 * share, interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )  # fmt: skip
    figure.colorbar(shown, ax=right, shrink=0.8, label="share of the largest")
    plotting.save(figure, path, plotting.plain(title))


def _photo(axes: Any, photo: np.ndarray) -> None:
    plotting.show(axes, photo)
    axes.set_axis_off()


def _sheet(tiles: Sequence[_Tile]) -> tuple[Any, Any]:
    """A figure with labelled images side by side, as high as each other; and its axes.

    All stand in one pair of axes: a hundred of them would take matplotlib seconds to lay out.
    """
    count = len(tiles)
    columns = min(count, min((7, 8, 6), key=lambda columns: -count % columns))  # fewest empty
    rows = math.ceil(count / columns)
    height, width = tiles[0][1].shape[:2]
    wide = width / height
    figure = plotting.figure(
        max(1.4 * columns + 1, 5.5), 1.6 * rows + 0.6
    )  # the title's width at least
    axes = figure.subplots()
    axes.set_axis_off()
    for place, (label, image, settings) in enumerate(tiles):
        left, top = (wide + 0.08) * (place % columns), 1.25 * (place // columns)
        axes.imshow(image, extent=(left, left + wide, top + 1, top), **settings)
        axes.text(left + wide / 2, top - 0.03, label, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(0, (wide + 0.08) * columns - 0.08), ylim=(1.25 * rows - 0.15, -0.2))
    return figure, axes
