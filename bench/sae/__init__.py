"""Sparse autoencoders: arms, families, the model, its gradients and its trainer."""
