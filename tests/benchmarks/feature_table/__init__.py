"""What libraries can do: systems with a dense truth, an adapter for each library, an experiment for each row."""
