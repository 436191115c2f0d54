"""klujax: KLU, a sparse LU for circuits, with the analysis of the pattern made once, as for a sequence of matrices."""

import klujax

from tests.benchmarks.peers import Run
from tests.benchmarks.peers.compiled import run


def start(method, case, rtol) -> Run:
    symbol = klujax.analyze(case.rows, case.A.indices, case.n)
    return run(
        case,
        lambda values, b, row, col: klujax.solve_with_symbol(row, col, values, b, symbol),
        *(case.rows, case.A.indices),
    )
