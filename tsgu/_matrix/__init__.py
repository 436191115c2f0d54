"""Sparse matrices: patterns, values on them, products, and the checks of arguments."""
