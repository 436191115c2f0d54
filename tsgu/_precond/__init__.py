"""Preconditioners; their public names are in ``tsgu.precond``."""
