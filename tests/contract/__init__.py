"""The contract that every package keeps: systems with known properties, their dense truth, and an adapter each."""
