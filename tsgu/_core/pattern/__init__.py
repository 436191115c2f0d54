"""Work on sparsity patterns: indices, no values."""
