"""Products, top-k and memory: what the rest computes with."""
