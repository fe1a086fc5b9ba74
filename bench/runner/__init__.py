"""Measuring: a cell, a block, the training loop, checkpoints, and where blocks run."""
