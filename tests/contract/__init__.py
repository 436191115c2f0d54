"""The contract that every package keeps: systems with known properties, their dense truth, and one adapter a package."""
