"""The dtypes that systems are solved in, by name."""

DTYPES = ("float32", "float64", "complex64", "complex128")
