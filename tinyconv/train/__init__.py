"""Training and evaluation: the loop, checkpoints, history, figures and pictures."""

from tinyconv.train.classifier import (
    at_size_of,
    begin,
    clear_errors,
    finish,
    hold_out,
    train_classifier,
)
from tinyconv.train.device import use_device
from tinyconv.train.digits import digit_sets
from tinyconv.train.evaluation import Evaluation, evaluate
from tinyconv.train.history import Epoch, History
from tinyconv.train.metrics import PerClass, accuracy, confusion_matrix, per_class
from tinyconv.train.photos import (
    PhotoSettings,
    augmentation,
    default_size,
    individuals,
    photo_sets,
)
from tinyconv.train.plots import plot_confusion, plot_curves, plot_predictions, save_pictures
from tinyconv.train.settings import Settings, flag, flag_of, parse
from tinyconv.train.trainer import Trainer, TrainingDiverged, TrainingInterrupted
from tinyconv.train.transfer import (
    Features,
    cached_features,
    extract_features,
    pretrained,
    train_head,
)

__all__ = [
    "Epoch",
    "Evaluation",
    "Features",
    "History",
    "PerClass",
    "PhotoSettings",
    "Settings",
    "Trainer",
    "TrainingDiverged",
    "TrainingInterrupted",
    "accuracy",
    "at_size_of",
    "augmentation",
    "begin",
    "cached_features",
    "clear_errors",
    "confusion_matrix",
    "default_size",
    "digit_sets",
    "evaluate",
    "extract_features",
    "finish",
    "flag",
    "flag_of",
    "hold_out",
    "individuals",
    "parse",
    "per_class",
    "photo_sets",
    "plot_confusion",
    "plot_curves",
    "plot_predictions",
    "pretrained",
    "save_pictures",
    "train_classifier",
    "train_head",
    "use_device",
]
