"""Whether kernels train as the reference does: python -m benchmarks --curve.

The same 300 steps on real photos, from the same weights, three times: by the reference ops, by
compiled kernels (Winograd convolutions among them), and by the reference again from weights that
differ in their last bit. A training amplifies any rounding, so the third run shows how far two
correct programs drift apart; the kernels should not drift further.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv
from benchmarks.report import progress
from benchmarks.workloads import data_folder
from tinyconv import functional as F
from tinyconv.data import ImageFolder, Loader

STEPS, SIZE, BATCH = 300, 64, 20
WINDOW = 20  # steps that a point of the smoothed curve averages
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def run(out: Path) -> None:
    """Train three times, print how far the curves are apart, write curve.json and curve.png."""
    photos = ImageFolder(data_folder("cats_vs_dogs") / "training_set", SIZE)
    runs = {
        "reference": losses(photos, kernels=False, nudge=False),
        "kernels": losses(photos, kernels=True, nudge=False),
        "reference, last bit changed": losses(photos, kernels=False, nudge=True),
    }
    reference = runs["reference"]
    found: dict[str, Any] = {"losses": {name: run.tolist() for name, run in runs.items()}}
    for name in list(runs)[1:]:
        apart = np.abs(runs[name] - reference)
        smooth = np.abs(smoothed(runs[name]) - smoothed(reference))
        found[name] = {
            "first step": apart[0],
            "first 10 steps": apart[:10].max(),
            f"means of {WINDOW} steps, largest": smooth.max(),
            f"means of {WINDOW} steps, root mean square": float(np.sqrt((smooth**2).mean())),
        }
        print(
            f"{name} against reference: "
            + ", ".join(f"{k} {v:.2g}" for k, v in found[name].items())
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "curve.json").write_text(json.dumps(found))
    draw(out / "curve.png", runs)


def losses(photos: ImageFolder, kernels: bool, nudge: bool) -> np.ndarray:
    """The losses of STEPS steps of `catdog` with Adam; `nudge` changes the weights' last bit."""
    tinyconv.use_backend("numpy", kernels=kernels)
    tinyconv.manual_seed(0)
    # Without biases that batch norms cancel: Adam would make full steps of their rounding.
    model = tinyconv.models.create("catdog", size=SIZE, conv_bias=False)
    if nudge:
        signs = np.random.default_rng(0)
        for p in model.parameters():
            p.data[...] = np.nextafter(
                p.data, signs.choice([-1e9, 1e9], p.shape).astype(np.float32)
            )
    optimizer = tinyconv.optim.Adam(model.parameters(), lr=5e-4)

    def step(images: Any, labels: Any) -> tinyconv.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(F.normalize_image(images, MEAN, STD)), labels)
        loss.backward()
        optimizer.step()
        return loss

    if kernels:
        step = tinyconv.compile(step)
    found = []
    for batch in Loader(photos, BATCH, shuffle=True, workers=0).epoch(0):
        progress(f"{'kernels' if kernels else 'reference'}: step {len(found) + 1} of {STEPS}")
        found.append(step(batch.images, batch.labels).item())
        if len(found) == STEPS:
            break
    return np.array(found)


def smoothed(curve: np.ndarray) -> np.ndarray:
    """Means over WINDOW steps in a row."""
    return np.convolve(curve, np.full(WINDOW, 1 / WINDOW), "valid")


def draw(path: Path, runs: dict[str, np.ndarray]) -> None:
    """The smoothed curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in runs.items():
        axes.plot(np.arange(WINDOW, len(curve) + 1), smoothed(curve), label=name, alpha=0.8)
    axes.set(
        xlabel="step",
        ylabel=f"training loss, mean of {WINDOW} steps",
        title="Kernels train as the reference does",
    )
    axes.legend()
    figure.savefig(path, dpi=120)
