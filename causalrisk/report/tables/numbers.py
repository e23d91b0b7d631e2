"""Numbers as text: fixed-point with enough digits, never 2.5e+04 where 25123.46 fits."""

from __future__ import annotations

from math import floor, isfinite, log10

import numpy as np
from numpy.typing import ArrayLike

LARGEST = 1e9
SMALLEST = 1e-6
SIGNIFICANT = 4


def format_number(x: float, digits: int = 7) -> str:
    """Return one number as text.

    Parameters
    ----------
    x : float
        The number; may be nan or infinite.
    digits : int
        Most significant digits to show.

    Returns
    -------
    str
        Fixed-point with at least two decimals and four significant digits, as far as `digits` allows; scientific from
        1e9 up and below 1e-6.

    Examples
    --------
    >>> [
    ...     format_number(x)
    ...     for x in (-228.5, 27.6, 25123.456, 0.000123, 1234567.8, 3e12, 0.0)
    ... ]
    ['-228.50', '27.60', '25123.46', '0.0001230', '1234568', '3.000e+12', '0.00']
    """
    value = float(x)
    if not isfinite(value):
        return str(value)
    if value == 0:
        return "0.00"
    if not SMALLEST <= abs(value) < LARGEST:
        return f"{value:.{SIGNIFICANT - 1}e}"
    exponent = floor(log10(abs(value)))
    decimals = min(max(2, SIGNIFICANT - 1 - exponent), max(digits - 1 - exponent, 0))
    return f"{value:.{decimals}f}"


def column_format(standard_errors: ArrayLike, estimates: ArrayLike = ()) -> str:
    """Choose one number format for numbers in one unit, so that they can be compared by eye.

    In a table of coefficients these are the numbers of a row, in a comparison of estimators the ones of a column.

    Parameters
    ----------
    standard_errors : array_like
        The standard errors: the smallest that is not zero shows at least four significant digits. Without a finite one
        that is not zero, the estimates take their place.
    estimates : array_like
        The other numbers that are printed in this format; only their size matters.

    Returns
    -------
    str
        A format specification for `format`: fixed-point with 2 to 8 decimals, or scientific where the numbers are too
        small or too far apart for that. A rounded negative zero prints without its sign.

    Examples
    --------
    >>> spec = column_format([27.6, 10.12], [-228.5, 3403.2])
    >>> [format(x, spec) for x in (-228.5, 27.6, -0.001, float("nan"))]
    ['-228.50', '27.60', '0.00', 'nan']
    >>> format(0.0123, column_format([0.0123]))
    '0.01230'
    """
    errors, others = _sizes(standard_errors), _sizes(estimates)
    leading = errors if errors.size else others
    if not leading.size:
        return "z.2f"
    decimals = max(2, SIGNIFICANT - 1 - floor(log10(leading.min())))
    largest = float(np.concatenate([errors, others]).max())
    whole = max(floor(log10(largest)) + 1, 1)
    if decimals > 8 or largest >= LARGEST or whole + decimals > 15:
        return f"z.{SIGNIFICANT - 1}e"
    return f"z.{decimals}f"


def format_p(p: float) -> str:
    """Return a p-value as text: three decimals, ``<0.001`` below that.

    Parameters
    ----------
    p : float
        The p-value; may be nan.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> [format_p(p) for p in (0.04321, 0.0009999, 1.0, float("nan"))]
    ['0.043', '<0.001', '1.000', 'nan']
    """
    return "<0.001" if p < 0.001 else f"{float(p):.3f}"


def format_share(x: float, decimals: int = 1) -> str:
    """Return a share as a percentage.

    Parameters
    ----------
    x : float
        The share, 1 for all of it; may be nan.
    decimals : int
        Decimals of the percentage.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> (
    ...     format_share(0.0234),
    ...     format_share(0.0036, decimals=0),
    ...     format_share(float("nan")),
    ... )
    ('2.3%', '0%', 'nan')
    """
    value = float(x)
    return f"{100 * value:z.{decimals}f}%" if isfinite(value) else str(value)


def _sizes(values: ArrayLike) -> np.ndarray:
    sizes = np.abs(np.asarray(values, dtype=float)).ravel()
    return sizes[np.isfinite(sizes) & (sizes > 0)]
