"""The activations of a block: one stream, shuffled, cached."""
