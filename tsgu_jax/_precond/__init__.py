"""Preconditioners; their public names are in ``tsgu_jax.precond``."""
