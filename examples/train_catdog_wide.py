"""The wide cats-and-dogs network, whose last block is applied four times, in three experiments:

    rmsprop-l1   RMSprop 1e-3 with an L1 penalty
    adam         Adam 1e-4
    adam-l1      Adam 1e-4 with an L1 penalty

Each trains anew, with TrivialAugmentWide, until 20 epochs are over or five have brought nothing
better on validation photos; then the best epoch's weights are tested, and a table compares the
three. Without --data they train on built-in drawn cats and dogs, small and short.

    python examples/train_catdog_wide.py --data DATA/cats_vs_dogs
    python examples/train_catdog_wide.py --data DATA/cats_vs_dogs --experiment adam
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tinyconv as tc
from tinyconv.data import Dataset
from tinyconv.io import atomic_write
from tinyconv.train import (
    PhotoSettings,
    augmentation,
    begin,
    clear_errors,
    flag,
    flag_of,
    parse,
    photo_sets,
    train_classifier,
)

EXPERIMENTS: dict[str, tuple[Any, float, float]] = {  # optimiser, learning rate, L1
    "rmsprop-l1": (tc.optim.RMSprop, 1e-3, 1e-5),
    "adam": (tc.optim.Adam, 1e-4, 0.0),
    "adam-l1": (tc.optim.Adam, 1e-4, 1e-5),
}


@dataclass(frozen=True)
class WideSettings(PhotoSettings):
    size: int = flag(0, "height and width in pixels, 64 or more (default: 224, of drawn images 64)")
    epochs: int = flag(0, "passes over the images (default: 20, over drawn images 3)")
    lr: float = flag(None, "learning rate (default: that of the experiment)", float)
    schedule: Literal["cosine", "constant"] = flag_of(PhotoSettings, "schedule", "constant")
    patience: int | None = flag_of(PhotoSettings, "patience", 5)
    augment: str = flag_of(PhotoSettings, "augment", "trivial")
    out: str = flag("", "folder of the results (default: runs/catdog_wide, or ...-drawn)")
    drawn_images: int = flag_of(PhotoSettings, "drawn_images", 400)
    experiment: str = flag("all", "which of the three to run", choices=("all", *EXPERIMENTS))


def main(arguments: Sequence[str] | None = None) -> dict:
    settings = parse(WideSettings, __doc__, arguments)
    drawn = settings.data is None
    settings = replace(
        settings,
        size=settings.size or (64 if drawn else 224),
        epochs=settings.epochs or (3 if drawn else 20),
        out=settings.out or ("runs/catdog_wide-drawn" if drawn else "runs/catdog_wide"),
    )
    with clear_errors():
        return compare(settings)


def compare(settings: WideSettings) -> dict:
    """Run the experiments, each in a folder of its own, and write table.json and a table."""
    chosen = list(EXPERIMENTS) if settings.experiment == "all" else [settings.experiment]
    experiments = {name: replace(settings, out=str(Path(settings.out) / name)) for name in chosen}
    for each in experiments.values():
        begin(each, "catdog_wide")
    sets = photo_sets(settings)
    results = {name: train(name, each, *sets) for name, each in experiments.items()}
    rows = {}
    for name in EXPERIMENTS:  # also those that an earlier run left there
        file = Path(settings.out) / name / "result.json"
        if file.exists():
            result = json.loads(file.read_text())
            rows[name] = {
                "test_accuracy": result["test_accuracy"],
                "best_epoch": result["best_epoch"],
                "epochs": len(result["history"]),
                "training_seconds": result["training_seconds"],
            }
    atomic_write(Path(settings.out) / "table.json", json.dumps(rows, indent=2).encode())
    print(f"\n{'experiment':<12}{'test':>8}{'best epoch':>12}{'epochs':>8}{'seconds':>9}")
    for name, row in rows.items():
        print(
            f"{name:<12}{row['test_accuracy']:>8.2%}{row['best_epoch']:>12}{row['epochs']:>8}"
            f"{row['training_seconds']:>9.0f}"
        )
    return results


def train(name: str, settings: WideSettings, train_set: Dataset, test_set: Dataset) -> dict:
    kind, lr, l1 = EXPERIMENTS[name]
    settings = replace(settings, lr=lr if settings.lr is None else settings.lr)
    print(f"\n{name}: {kind.__name__}, learning rate {settings.lr:g}, L1 {l1:g}")
    tc.manual_seed(settings.seed)  # the same start for each
    model = tc.models.create("catdog_wide", num_classes=len(train_set.classes), size=settings.size)
    inputs = tc.models.inputs("catdog_wide")
    return train_classifier(
        settings,
        model=model,
        optimizer=kind(model.parameters(), lr=settings.lr, l1=l1),
        train=train_set,
        test=test_set,
        mean=inputs.mean,
        std=inputs.std,
        augment=augmentation(settings),
    )


if __name__ == "__main__":
    main()
