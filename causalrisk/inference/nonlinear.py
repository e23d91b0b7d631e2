"""Nonlinear functions of the parameters by the delta method (Stata's nlcom)."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from causalrisk.errors import OptionError, listed
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.hypotheses import parameter_covariance
from causalrisk.inference.wald import rounded_se
from causalrisk.numerics.linalg import Array

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {"log": np.log, "exp": np.exp, "sqrt": np.sqrt}
PLACEHOLDER = "parameter_{}_"
TOLD = 1e-6  # relative change of an expression beyond which it depends on the level of the arm means


class Expressions:
    """Expressions of named parameters.

    Parameters
    ----------
    text : str
        One or more, separated by commas; "= value" states the null value of a test.
    names : sequence of str, length d
        Names of the parameters.

    Attributes
    ----------
    texts : list of str, length m
        The expressions as given, without their null values.
    null : ndarray, shape (m,)
        Null values of the tests.
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text, self.names = text, names
        ordered = sorted(range(len(names)), key=lambda k: -len(names[k]))
        self.places = {PLACEHOLDER.format(k): k for k in range(len(names))}
        found = "|".join(re.escape(names[k]) for k in ordered)
        position = {name: k for k, name in enumerate(names)}
        coded = re.sub(rf"(?<!\w)(?:{found})(?!\w)", lambda match: PLACEHOLDER.format(position[match[0]]), text)
        self.texts, self.null, self.trees = [], np.zeros(coded.count(",") + 1), []
        for j, part in enumerate(coded.split(",")):
            sides = [self._parsed(side) for side in part.split("=")]
            if len(sides) > 2:
                raise self._unreadable("it has more than one =")
            left = sides[0]
            if len(sides) == 2 and not any(isinstance(node, ast.Name) for node in ast.walk(sides[1])):
                self.null[j] = float(self._value(sides[1], np.empty(0)))
            elif len(sides) == 2:
                left = ast.BinOp(left, ast.Sub(), sides[1])
            shown = part.partition("=")[0] if len(sides) == 2 and left is sides[0] else part
            self.trees.append(left)
            self.texts.append(re.sub(r"parameter_(\d+)_", lambda match: names[int(match[1])], shown).strip())

    def values_at(self, params: Array) -> Array:
        """Values at parameters of shape (d,), shape (m,)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.array([self._value(tree, params) for tree in self.trees])

    def _parsed(self, side: str) -> ast.expr:
        if "^" in side:
            raise self._unreadable("^ is not a power", 'Type  **  for a power, as in  "POM[1]**2".')
        try:
            return ast.parse(side.strip(), mode="eval").body
        except SyntaxError as error:
            raise self._unreadable(error.msg) from error

    def _value(self, node: ast.AST, params: Array) -> Any:
        """Value of a node at the parameters."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            return float(node.value)
        if isinstance(node, ast.Name) and node.id in self.places:
            return params[self.places[node.id]]
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](self._value(node.left, params), self._value(node.right, params))
        if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](self._value(node.operand, params))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
            if node.func.id in FUNCTIONS:
                return FUNCTIONS[node.func.id](self._value(node.args[0], params))
            raise self._unreadable(f"{node.func.id} is no function it knows; expected {listed(tuple(FUNCTIONS))}")
        if isinstance(node, ast.Name):
            raise self._unreadable(f"{node.id!r} is not a parameter")
        raise self._unreadable("expected numbers, parameters, + - * / ** and log, exp, sqrt")

    def _unreadable(self, reason: str, advice: str = "") -> OptionError:
        names = ", ".join(self.names)
        usual = f'The parameters are {names}. Type  "{self.names[-1]} / {self.names[-2]} - 1"  for example.'
        return OptionError(f"cannot read the expression {self.text!r}: {reason}.\n{advice or usual}")


def nlcom(record: FitRecord, expression: str) -> Any:
    """Estimate functions of `params` that need not be linear, with standard errors by the delta method.

    Parameters
    ----------
    expression : str
        Such as "POM[1] / POM[0] - 1", of numbers, names of `params`, + - * / ** and log, exp, sqrt; several separated
        by commas. "= value" says what it is tested against, by default 0.

    Returns
    -------
    statsmodels.stats.contrast.ContrastResults
        Estimates, z tests and intervals, as of `t_test`; `summary()` names the expressions.

    Raises
    ------
    OptionError
        If the expression cannot be read, or has no value at the estimates.
    OptionError
        For JRE, if it depends on more than the effect: the arm means are net of a bias that they share.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula(
    ...     "bweight ~ mage + medu", births, treat="mbsmoke"
    ... ).fit()
    >>> change = res.nlcom("POM[1] / POM[0] - 1")
    >>> print(f"{change.effect[0]:.4f} ({change.sd[0]:.4f})")
    -0.0754 (0.0071)
    """
    from statsmodels.stats._delta_method import NonlinearDeltaCov
    from statsmodels.stats.contrast import ContrastResults

    wanted, params = Expressions(expression, record.names), record.estimate.params
    values = wanted.values_at(params)
    if not np.isfinite(values).all():
        text = wanted.texts[int(np.argmin(np.isfinite(values)))]
        raise OptionError(
            f"{text!r} has no finite value at the estimates: "
            f"{', '.join(f'{name} = {value:.4g}' for name, value in zip(record.names, params, strict=True))}.\n"
            "Write an expression that has, such as a difference in place of a ratio or logarithm."
        )
    if record.joint is not None:
        _check_of_effect(record, wanted, values)
    sd = NonlinearDeltaCov(wanted.values_at, params, parameter_covariance(record)).se_vectorized()
    sd = rounded_se(np.r_[values, params], sd)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(sd > 0, (values - wanted.null) / sd, np.nan)
    found = ContrastResults(effect=values, statistic=z, sd=sd, distribution="norm")
    found.c_names = wanted.texts
    return found


def _check_of_effect(record: FitRecord, wanted: Expressions, values: Array) -> None:
    """Refuse an expression that changes as all arm means move together, which leaves a joint fit's effect as it is."""
    scale, params, first = record.options.effect_scale, record.estimate.params, len(record.effect_names)
    on_scale = scale.g(params[first:])
    by = 0.1 if np.isfinite(scale.low) else max(float(np.abs(on_scale).max()), 1e-3)
    moved = np.r_[params[:first], scale.g_inverse(on_scale + by)]
    if not np.allclose(wanted.values_at(moved), values, rtol=TOLD, atol=0):
        raise OptionError(
            f"{wanted.text!r} depends on the level of the arm means, and JRE knows them only up to a bias that they "
            f'share; its effect="{scale.name}" does not depend on it.\n'
            'Choose the scale before the fit:  model.with_options(effect="ratio").fit(),  or type  res.start.nlcom().'
        )
