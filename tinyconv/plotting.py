"""How pictures are drawn and saved with matplotlib, which is imported only when one is."""

from __future__ import annotations

import importlib.util
import io
import os
from typing import Any

import numpy as np

from tinyconv.io.files import atomic_write


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def figure(width: float, height: float) -> Any:
    """A new figure, sizes in inches; without pyplot it leaves the user's own figures alone."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def show(axes: Any, image: np.ndarray) -> None:
    """Draw an image uint8 (H, W, C), C = 3 (RGB) or 1 (grey)."""
    axes.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)


def save(figure: Any, path: str | os.PathLike[str], title: str) -> None:
    """Write a figure as PNG, atomically. Raises DataError where the disk refuses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.suptitle(title)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    atomic_write(path, picture.getvalue())


def plain(name: str) -> str:
    """A text as it is: matplotlib would read what stands between dollars as a formula."""
    return name.replace("$", r"\$")
