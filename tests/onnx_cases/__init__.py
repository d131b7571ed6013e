"""The ONNX standard's own test cases, run on tinyconv: an oracle that nobody here wrote."""
