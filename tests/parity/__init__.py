"""tinyconv against PyTorch: the same inputs, and the same outputs and gradients."""
