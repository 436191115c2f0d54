"""Factorisations, incomplete factors and multigrid levels on the host, and substitution."""
