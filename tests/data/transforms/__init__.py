"""Each transform against its definition; tests/parity compares them with torchvision."""
