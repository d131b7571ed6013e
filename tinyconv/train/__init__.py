"""Training and evaluation: the loop, checkpoints, history, figures and pictures."""

from tinyconv.train.classifier import clear_errors, train_classifier
from tinyconv.train.evaluation import Evaluation, evaluate
from tinyconv.train.history import Epoch, History
from tinyconv.train.metrics import PerClass, accuracy, confusion_matrix, per_class
from tinyconv.train.plots import plot_confusion, plot_curves, plot_predictions, save_pictures
from tinyconv.train.settings import Settings, flag, parse
from tinyconv.train.trainer import Trainer, TrainingDiverged, TrainingInterrupted

__all__ = [
    "Epoch",
    "Evaluation",
    "History",
    "PerClass",
    "Settings",
    "Trainer",
    "TrainingDiverged",
    "TrainingInterrupted",
    "accuracy",
    "clear_errors",
    "confusion_matrix",
    "evaluate",
    "flag",
    "parse",
    "per_class",
    "plot_confusion",
    "plot_curves",
    "plot_predictions",
    "save_pictures",
    "train_classifier",
]
