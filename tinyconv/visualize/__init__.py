"""Looking inside a network: its filters, feature maps, and what in an image speaks for a class."""

from tinyconv.visualize.inside import feature_maps, grad_cam, input_gradient
from tinyconv.visualize.pictures import plot_features, plot_filters, plot_grad_cam, plot_saliency

__all__ = [
    "feature_maps",
    "grad_cam",
    "input_gradient",
    "plot_features",
    "plot_filters",
    "plot_grad_cam",
    "plot_saliency",
]
