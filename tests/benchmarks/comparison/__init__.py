"""The machinery of ``tests/benchmarks/compare.py``: cases, processes, checks and tables. The libraries: ``peers``."""
