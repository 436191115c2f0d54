"""What the PyTorch and the JAX package share; NumPy and SciPy only."""
