"""Sparse matrices: patterns, values on them, layouts, products, and the checks of arguments."""
