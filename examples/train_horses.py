"""Horses or humans, from scratch.

The data set shows few individuals on many pictures each, and tests on others. So whole individuals
are held out for validation too: "horse07-3.jpg" is a picture of individual horse07.

    python examples/train_horses.py --data DATA/horse_or_human

Without --data it trains on built-in drawn cats and dogs instead. transfer_catdog.py learns the same
by transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tinyconv as tc
from tinyconv.train import (
    PhotoSettings,
    augmentation,
    begin,
    clear_errors,
    flag,
    flag_of,
    individuals,
    parse,
    photo_sets,
    train_classifier,
)


@dataclass(frozen=True)
class HorsesSettings(PhotoSettings):
    size: int = flag_of(PhotoSettings, "size", 64)
    epochs: int = flag(0, "passes over the images (default: 40, over drawn images 7)")
    augment: str = flag_of(PhotoSettings, "augment", "strong")
    out: str = flag(
        "", "folder of the results (default: runs/horses, of drawn images runs/horses-drawn)"
    )
    weight_decay: float = flag(0.05, "decoupled weight decay (AdamW)")


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(HorsesSettings, __doc__, arguments)
    drawn = settings.data is None
    settings = replace(
        settings,
        out=settings.out or ("runs/horses-drawn" if drawn else "runs/horses"),
        epochs=settings.epochs or (7 if drawn else 40),
    )
    with clear_errors():
        return train(settings)


def train(settings: HorsesSettings) -> dict:
    begin(settings, "horses")
    train_set, test_set = photo_sets(settings)
    model = tc.models.create("horses", num_classes=len(train_set.classes), size=settings.size)
    inputs = tc.models.inputs("horses")
    return train_classifier(
        settings,
        model=model,
        optimizer=tc.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        ),
        train=train_set,
        test=test_set,
        mean=inputs.mean,
        std=inputs.std,
        augment=augmentation(settings),
        groups=individuals(train_set),
    )


if __name__ == "__main__":
    main()
