"""Speed, measured side by side; run by ``python -m pytest tests/benchmarks --benchmark-only``."""
