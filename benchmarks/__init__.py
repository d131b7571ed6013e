"""tinyconv beside PyTorch: `python -m benchmarks` from the repository's root."""
