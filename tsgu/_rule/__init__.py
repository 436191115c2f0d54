"""The gradient rule, and who solves with A and who with its transpose."""
