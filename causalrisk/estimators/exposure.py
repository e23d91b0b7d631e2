"""At which exposures the means of the arms are, and which estimators have means there.

With eta the linear predictor of the covariates and o the offset (of an exposure t its logarithm), the outcome models
are trained to g^{-1}(eta + o). The means are averages of g^{-1}(eta + o) at the observed offsets, or, for a stated
exposure e, of g^{-1}(eta + log e). At the observed offsets the residuals y - m are those of the means, so that what an
estimator says of its bias carries over. At another exposure they are not: nothing was observed there.
"""

from __future__ import annotations

import numpy as np

from causalrisk.design import Design
from causalrisk.errors import OptionError, UnavailableError
from causalrisk.estimators.options import OBSERVED, ModelOptions, is_frame
from causalrisk.estimators.specification import Specification
from causalrisk.numerics.linalg import Array


def stated_exposure(design: Design, options: ModelOptions) -> float | None:
    """Return the exposure that the means are at; None where they are at the observed ones, or there are none."""
    if design.offset_kind != "exposure" or options.at_exposure == OBSERVED:
        return None
    return 1.0 if options.at_exposure is None else float(options.at_exposure)


def mean_offset(design: Design, options: ModelOptions) -> Array | None:
    """Offset at which the means are, shape (n,), rows in the order of the design; None without offsets."""
    stated = stated_exposure(design, options)
    return design.offset if stated is None else np.full(design.n, np.log(stated))


def check_offset(design: Design, options: ModelOptions) -> None:
    """Refuse options that do not go with the offset of a design, or its absence.

    Parameters
    ----------
    design : Design
        The data.
    options : ModelOptions
        What is estimated.

    Raises
    ------
    OptionError
        If means at an exposure are asked for that is not given; if the link has no exposure; if the rows of a target
        frame, which have no exposure of their own, were to have means at it.
    """
    kind, family = design.offset_kind, options.outcome_family
    if kind != "exposure":
        if options.at_exposure is not None:
            instead = "Leave at_exposure= out" if kind is None else "Give  exposure=np.exp(offset)  in place of offset="
            raise OptionError(
                f"at_exposure={options.at_exposure!r} says at which exposure the means are, and exposure= is not "
                f'given.\n{instead}, or type  exposure="<column>"  with it.'
            )
    elif family.link != "log":
        raise OptionError(
            f"exposure={design.offset_name!r} multiplies the mean, which needs a log link; the outcome model is "
            f'{family.label}.\nType  family="poisson"  for a rate, or  link="log"  if the family has it.'
        )
    if kind is not None and is_frame(options.target) and stated_exposure(design, options) is None:
        instead = "Leave target= out." if kind == "offset" else "Type  at_exposure=1."
        raise OptionError(
            f"the means are at the observed {kind}s ({design.offset_name!r}), which the rows of a target frame do not "
            f"have.\n{instead}"
        )


def check_means(design: Design, options: ModelOptions, spec: Specification) -> None:
    """Refuse an estimator whose means are at the observed exposures only.

    Parameters
    ----------
    design : Design
        The data.
    options : ModelOptions
        What is estimated.
    spec : Specification
        The estimator.

    Raises
    ------
    OptionError
        If it uses the residuals of the outcomes and the means are at a stated exposure.
    """
    stated = stated_exposure(design, options)
    if stated is None or not (spec.corrected or spec.joint):
        return
    why = "corrects the means by the residuals" if spec.corrected else "judges its bias by the residuals"
    raise OptionError(
        f"{spec.name} {why} of the outcomes, which are those at the observed exposures ({design.offset_name!r}); means "
        f"are asked for at exposure {stated:g}, as OutcomeRegression, IPWRA and Hajek have them.\n"
        'Type  at_exposure="observed"  for means of the outcome as it was observed; their ratio is a rate ratio.'
    )


def check_observed(design: Design, options: ModelOptions, what: str) -> None:
    """Raise an UnavailableError for a diagnostic of the residuals where means are of something else than outcomes."""
    if design.periods is not None:
        raise UnavailableError(
            f"{what} go by the residual of each row, and the means of repeated cross sections are changes.\n"
            "Look at both periods by themselves:  fits to the rows of one period, without did=."
        )
    stated = stated_exposure(design, options)
    if stated is not None:
        raise UnavailableError(
            f"{what} go by the residuals at the observed exposures ({design.offset_name!r}), and the means of this fit "
            f"are at exposure {stated:g}.\n"
            'Type  model.with_options(at_exposure="observed").fit()  for a fit that has them.'
        )
