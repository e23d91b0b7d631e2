"""A basis of ill-conditioned columns in 60-digit arithmetic, so that a double-precision reference can judge them."""

from __future__ import annotations

import decimal

import numpy as np

DIGITS = 60


def orthonormalised(columns: np.ndarray) -> np.ndarray:
    """Columns that span the same space, orthogonal and of mean square one: Gram and Schmidt's, rounded at the end.

    Whatever the condition of the columns, the basis is right to the last digit of a double: estimates of effects and
    means depend on the space only, and are computed from the basis without further loss.
    """
    with decimal.localcontext(prec=DIGITS):
        exact = np.frompyfunc(decimal.Decimal, 1, 1)(columns).T
        basis: list[np.ndarray] = []
        for column in exact:
            for other in basis:
                column = column - (column @ other) / decimal.Decimal(len(column)) * other
            size = ((column @ column) / decimal.Decimal(len(column))).sqrt()
            basis.append(column / size)
        return np.array(basis, dtype=float).T
