"""python -m tinyconv inspect MODEL PHOTO: what goes on inside a network, as pictures."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from tinyconv import functional as F
from tinyconv import plotting
from tinyconv.cli.flags import add_backend
from tinyconv.cli.predict import class_probabilities, print_rows
from tinyconv.data import read_image
from tinyconv.errors import DataError
from tinyconv.io import load_model
from tinyconv.nn import Conv2d
from tinyconv.visualize import (
    feature_maps,
    grad_cam,
    input_gradient,
    plot_features,
    plot_filters,
    plot_grad_cam,
    plot_saliency,
)

_MOST = 8  # pictures of feature maps where no layers are named


def add(commands: Any) -> None:
    """Add the command to the parser."""
    inspect = commands.add_parser(
        "inspect",
        help="draw what a network sees in a photo",
        description="Draw the filters of the first convolution, the feature maps of layers, the "
        "pixels that the answer depends on (saliency) and where the last convolution sees it "
        "(Grad-CAM), as PNG files.",
    )
    inspect.add_argument("model", metavar="MODEL", help="model.safetensors of a training")
    inspect.add_argument("photo", metavar="PHOTO", help="an image")
    inspect.add_argument(
        "--layer",
        metavar="NAME",
        nargs="+",
        help="whose feature maps; * stands for any characters (default: convolutions, at most "
        f"{_MOST} from first to last)",
    )
    inspect.add_argument(
        "--out", metavar="FOLDER", help="(default: inspect/PHOTO's name, beside MODEL)"
    )
    add_backend(inspect)
    inspect.set_defaults(command=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    """Write the pictures; print the answer, their names and the layers that can be asked for."""
    if not plotting.available():
        sys.exit("error: inspect draws with matplotlib, which is missing: pip install matplotlib")
    model, card = load_model(options.model)
    photo = read_image(options.photo, card.size, card.channels)
    images = F.normalize_image(photo[None], card.mean, card.std, model.dtype)
    layers = dict(model.named_modules())
    outputs = feature_maps(model, images, options.layer or "*")
    maps = {call: y[0] for call, y in outputs.items() if y.ndim == 4 and y.shape[2:] != (1, 1)}
    if not maps:
        raise ValueError(
            f"--layer: {', '.join(outputs)} found, expected layers that give maps of several pixels"
        )
    kinds = {call: type(layers[_layer(call)]).__name__ for call in maps}
    probabilities = dict(
        zip(card.classes, class_probabilities(model, card, photo[None])[0].tolist(), strict=True)
    )
    answer = max(probabilities, key=lambda name: probabilities[name])
    says = f"{answer} {probabilities[answer]:.1%}"

    drawn = list(maps)
    if not options.layer:
        drawn = [call for call in maps if isinstance(layers[_layer(call)], Conv2d)]
    convolutions = len(drawn)
    if not options.layer and convolutions > _MOST:
        drawn = [drawn[n] for n in np.linspace(0, convolutions - 1, _MOST).round().astype(int)]

    folder = _made_folder(options)
    files = [folder / "filters.png"]
    name, first = next((name, x) for name, x in layers.items() if isinstance(x, Conv2d))
    weight = first.weight.numpy()
    count, *size = weight.shape
    title = f"layer {name}: {type(first).__name__}, {count} filters of {' x '.join(map(str, size))}"
    plot_filters(weight, files[0], title)
    for call in drawn:
        kind = kinds[call]
        files.append(folder / f"features-{_file_name(call)}-{kind.lower()}.png")
        count, height, width = maps[call].shape
        title = f"layer {call}: {kind}, {count} maps of {height} x {width}"
        plot_features(maps[call], photo, files[-1], title)
    files += [folder / "saliency.png", folder / "gradcam.png"]
    plot_saliency(input_gradient(model, images)[0], photo, files[-2], f"{says}: saliency")
    plot_grad_cam(grad_cam(model, images)[0], photo, files[-1], f"{says}: Grad-CAM")

    print_rows([{"path": options.photo, "probabilities": probabilities}])
    print(f"\n{folder}:")
    _print_words("", [file.name for file in files])
    if not options.layer:
        if len(drawn) < convolutions:
            print(f"\n{len(drawn)} of {convolutions} convolutions; --layer '*' draws all layers")
        print("\nlayers for --layer:")
        for kind in dict.fromkeys(kinds.values()):
            _print_words(f"{kind:<17}  ", [_layer(call) for call in maps if kinds[call] == kind])
    if card.drawn:
        sys.stderr.write("note: this network was trained on drawn images, not on photos\n")
    return 0


def _layer(call: str) -> str:
    """The name of the layer of a feature map: "3" for "3" and for its second call, "3#2"."""
    return call.partition("#")[0]


def _file_name(call: str) -> str:
    """A layer's name in a file name, its numbers with two digits: files are listed in order."""
    padded = re.sub(r"(?<![^\W_])\d\b", lambda digit: f"0{digit[0]}", call)
    return re.sub(r"[^\w.]", "-", padded)


def _made_folder(options: argparse.Namespace) -> Path:
    beside = Path(options.model).parent / "inspect" / Path(options.photo).stem
    folder = Path(options.out or beside)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: could not be made: {error.strerror or error}") from error
    return folder


def _print_words(first: str, words: list[str]) -> None:
    """Words that come several times are printed once."""
    text = "  ".join(dict.fromkeys(words))
    indent = " " * (2 + len(first))
    print(textwrap.fill(text, 100, initial_indent=f"  {first}", subsequent_indent=indent,
                        break_on_hyphens=False, break_long_words=False))  # fmt: skip
