"""Propensity models: links, likelihoods, and what the importance weights need of a model."""

from causalrisk.links import LINKS
from causalrisk.propensity.external import ClassifierModel, ClippedModel, is_classifier
from causalrisk.propensity.models import BinaryModel, CalibratedModel, KnownModel, MultinomialModel, PropensityModel

__all__ = [
    "LINKS",
    "BinaryModel",
    "CalibratedModel",
    "ClassifierModel",
    "ClippedModel",
    "KnownModel",
    "MultinomialModel",
    "PropensityModel",
    "is_classifier",
]
