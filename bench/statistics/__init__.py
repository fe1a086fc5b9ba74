"""What is true of a layer's activations before anyone trains: gamma, effective rank, median."""
