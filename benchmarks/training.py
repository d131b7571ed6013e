"""How idle the GPU is while it trains, and whether its memory grows: --backend cupy --training.

`catdog` at 256x256 is trained by the Trainer, from bytes on the host: loader, copies, steps, sums.
Then the graph of the same step alone is replayed as often, on one batch that lies on the device.
What the epochs took beyond that, the device was idle.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv
from benchmarks.device import memory
from benchmarks.report import duration, print_line, progress, write_json
from benchmarks.workloads import CORES, Skipped, data_folder
from tinyconv.data import ArrayDataset, Compose, ImageFolder, Loader
from tinyconv.train import Trainer
from tinyconv.train.photos import AUGMENTATIONS

SIZE, IMAGES, EPOCHS = 256, 5120, 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# precision, augmentation (without one the images stay on the device), batch
CASES = (
    ("tf32", "none", 20),
    ("tf32", "light", 20),
    ("mixed", "none", 20),
    ("mixed", "light", 20),
    ("mixed", "light", 128),
)


def run(out: Path, images: int = IMAGES, size: int = SIZE) -> None:
    """Train in each of CASES, print a table and write training.json to `out`."""
    tinyconv.use_backend("cupy", precision="tf32")
    photos, what = _photos(images, size)
    print(f"catdog, {size}x{size}, {len(photos):,} {what}, {CORES} loader threads, {EPOCHS} epochs")
    print("(rates without the first, which has everything to prepare)")
    print_line("precision, augment, batch", "", "step", "images/s", "GPU idle", "pool growth")
    found = []
    for case in CASES:
        progress(f"training: {', '.join(map(str, case))}")
        row = train(photos, *case)
        found.append(row)
        print_line(
            ", ".join(map(str, case)), "", duration(row["step_seconds"]),
            f"{row['images_per_second']:,.0f}", f"{row['idle']:.1%}",
            f"{row['memory_at_the_end']['pool'] - row['memory_after_epoch_1']['pool']:,} bytes",
        )  # fmt: skip
        write_json(out / "training.json", {"images": what, "trainings": found})


def _photos(images: int, size: int) -> tuple[Any, str]:
    """Real photos where TINYCONV_DATA has them, read and kept in memory; else noise."""
    try:
        folder = data_folder("cats_vs_dogs") / "training_set"
    except Skipped:
        noise = np.random.default_rng(0).integers(0, 256, (images, size, size, 3), np.uint8)
        return ArrayDataset(noise, np.arange(images) % 2, ("cat", "dog")), "images of noise"
    progress("reading photos")
    return ImageFolder(folder, size, workers=CORES, limit=images), "photos"


def train(photos: Any, precision: str, augment: str, batch: int) -> dict[str, Any]:
    """Train, then repeat the step alone: seconds, share of idle time, and memory in bytes."""
    size = photos.image(0).shape[0]
    tinyconv.manual_seed(0)
    model = tinyconv.models.create("catdog", size=size)
    optimizer = tinyconv.optim.Adam(model.parameters(), lr=5e-4)
    mixed = precision == "mixed"
    trainer = Trainer(model, optimizer, mean=MEAN, std=STD, mixed=mixed, quiet=True)
    transforms = AUGMENTATIONS[augment](size)
    loader = Loader(
        photos, batch, shuffle=True, augment=Compose(transforms) if transforms else None,
        workers=CORES, drop_last=True,
    )  # fmt: skip
    trainer.fit(loader, epochs=1)
    before = memory()
    history = trainer.fit(loader, epochs=EPOCHS)
    after = memory()
    epochs = [epoch.seconds for epoch in history.epochs[1:]]
    alone = step_seconds(trainer, next(loader.epoch(0)), len(loader))
    wall = sum(epochs) / len(epochs)
    return {
        "precision": precision, "augment": augment, "batch": batch, "steps": len(loader),
        "epoch_seconds": epochs, "step_seconds": alone, "idle": 1 - len(loader) * alone / wall,
        "images_per_second": len(loader) * batch / wall,
        "memory_after_epoch_1": before, "memory_at_the_end": after,
    }  # fmt: skip


def step_seconds(trainer: Trainer, batch: Any, steps: int) -> float:
    """Seconds that the device is busy with one step, without copies and Python: mean of many."""
    step = tinyconv.compile(trainer.step)
    step(*map(tinyconv.backend.asarray, (batch.images, batch.labels)))
    tinyconv.backend.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step.plan.run()
    tinyconv.backend.synchronize()
    return (time.perf_counter() - began) / steps
