"""The words for values that do not fit a pattern."""


def given_shape(name: str, nse: int, got: tuple[int, ...], any_batch: bool) -> str:
    accepted = f"(..., {nse})" if any_batch else f"({nse},) or (batch, {nse})"
    return f"{name} must have shape {accepted}, one value per position that the pattern was built from; got {got}."


def device_of_values(name: str, pattern: object, got: object) -> str:
    return (
        f"{name} must be on the device of the pattern, {pattern}; got {got}. "
        "Move the pattern by pattern.to(device), which keeps what it has found for each device."
    )


def values_of_coo(nse: int, got: tuple[int, ...]) -> str:
    return f"values must have shape (nse,) or (batch, nse) with nse = {nse} as in row; got {got}."


def vmap_of_dense() -> str:
    return (
        "A must be the same for all members of a batch, to be searched for nonzero entries; got one that vmap maps "
        "over. Build a Pattern(row, col, shape) outside of vmap, and the matrix inside, by pattern.matrix(A[row, col])."
    )
