"""Texts on target populations: the rows that means are averages over, in the summary and in words, and the weights."""

from causalrisk.estimation.targets import TargetPopulation

TEXTS = {  # fields are filled in with the numbers of the sample
    "all": {
        "rows": "all {nobs} {units}",
        "people": "all {nobs} {units}",
        "weight": (
            "A row weighs 1 / (probability of the arm it is in): a row that had a chance of 1 in 10 to be in its arm "
            "stands for ten like it, nine of which are in other arms."
        ),
    },
    "arm": {
        "rows": "the {in_arm} {units} of {arm}",
        "people": "the {in_arm} {units} of arm {arm}",
        "weight": (
            "Rows of arm {arm} are the target and weigh 1. Any other row weighs (probability of {arm}) / (probability"
            " of its own arm), so that the other arms come to look like {arm}."
        ),
    },
    "overlap": {
        "rows": "{nobs} {units} tilted to where the arms overlap",
        "people": "the rows for which every arm was likely (each row counts the more, the less certain its arm was)",
        "weight": (
            "A row weighs h / (probability of its own arm), where h is 1 over the sum of 1 / probability over the "
            "arms: large where every arm was likely; no weight exceeds 1."
        ),
        "two_arms_weight": "A row weighs the probability of the arm it is not in; no weight exceeds 1.",
    },
    "matching": {
        "rows": "{nobs} {units} tilted to those that one-to-one matching would keep",
        "people": "the rows that would find a match (each row counts by the probability of its least likely arm)",
        "weight": (
            "A row weighs (probability of its least likely arm) / (probability of its own arm): 1 where its own arm "
            "was the least likely; no weight exceeds 1."
        ),
    },
    "entropy": {
        "rows": "{nobs} {units} tilted by the entropy of the propensity score",
        "people": "the rows whose arm was uncertain (each row counts by the entropy of its propensity score)",
        "weight": (
            "A row weighs h / (probability of its own arm), where h, the entropy, is minus the sum over the arms of "
            "probability times its logarithm: large where no arm was nearly certain."
        ),
    },
    "function": {
        "rows": "{nobs} {units} tilted by a function of the propensity score",
        "people": "the rows, counted by the function of the propensity score given as target=",
        "weight": "A row weighs h(score) / (probability of its own arm), where h is the function given as target=.",
    },
    "data_frame": {
        "rows": "the {in_frame} rows of the target frame",
        "people": "the {frame_rows} of the data frame given as target=",
        "weight": (
            "A row weighs r / (probability of its own arm), where r says how much commoner rows like it are in the "
            "target frame than in the sample (from a logit model of being in the frame)."
        ),
    },
}


def population_text(population: TargetPopulation, what: str) -> str:
    """Return the text on "rows", "people", "weight" or "two_arms_weight"; empty where there is none."""
    return TEXTS[population.texts].get(what, "")
