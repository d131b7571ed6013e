"""The ops against loops over every index, written from the formulas."""
