"""Optimisers and learning-rate schedules, with PyTorch's arguments and formulas."""

from tinyconv.optim import lr_scheduler
from tinyconv.optim.adam import Adam, AdamW
from tinyconv.optim.loss_scaler import LossScaler
from tinyconv.optim.optimizer import Optimizer
from tinyconv.optim.rmsprop import RMSprop
from tinyconv.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "LossScaler", "Optimizer", "RMSprop", "lr_scheduler"]
