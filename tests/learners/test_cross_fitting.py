"""Cross-fitted predictions: folds, seeds, weights, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPWRA, JRE, Hajek, OutcomeRegression
from causalrisk.errors import DesignWarning, LearnerError, OptionError, UnavailableError
from causalrisk.numerics.resampling import folds_of
from tests.learners.toys import Constant, Failing, FailingClassifier, Line, Margin, Noisy, Share, Unweighted, sample

FORMULA = "y ~ x1 + x2"


def fitted(model, frame, learner, **options):
    return model.from_formula(options.pop("formula", FORMULA), frame, treat="d", learner=learner, **options).fit()


def by_hand(frame, fold, weights=None, columns=("x1", "x2")):
    """Least squares in each arm outside of each fold, by numpy."""
    X = np.column_stack([np.ones(len(frame)), frame[list(columns)]])
    w = np.ones(len(frame)) if weights is None else np.asarray(weights, dtype=float)
    arm, y, found = frame["d"].to_numpy(), frame["y"].to_numpy(), np.empty((len(frame), 2))
    for a in (0, 1):
        for k in range(fold.max() + 1):
            rows, root = (arm == a) & (fold != k), np.sqrt(w)[:, None]
            beta = np.linalg.lstsq((X * root)[rows], (y * root[:, 0])[rows], rcond=None)[0]
            found[fold == k, a] = X[fold == k] @ beta
    return found


def test_each_row_is_predicted_by_fits_to_the_other_folds():
    frame = sample()
    fold = folds_of(frame["d"].to_numpy(), None, 4)
    found = fitted(AIPW, frame, Line(), n_folds=4).outcome_predictions
    np.testing.assert_allclose(found, by_hand(frame, fold), rtol=1e-10)
    assert found.index.equals(frame.index)


def test_weights_reach_the_learner():
    frame = sample().assign(w=lambda of: np.arange(len(of)) % 3 + 1)
    fold = folds_of(frame["d"].to_numpy(), None, 5)
    expected = by_hand(frame, fold, frame["w"])
    for learner, kind in ((Line(), "frequency"), (Unweighted(), "frequency"), (Line(), "probability")):
        found = fitted(AIPW, frame, learner, weights="w", weight_type=kind).outcome_predictions
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    with pytest.raises(OptionError, match='learner="smooth"'):
        fitted(AIPW, frame, Unweighted(), weights="w", weight_type="probability")


def test_the_learner_of_the_caller_is_not_changed():
    learner = Line()
    fitted(AIPW, sample(), learner)
    assert not hasattr(learner, "beta")


def test_one_fold_predicts_the_rows_that_it_is_fitted_to():
    frame = sample()
    linear = AIPW.from_formula(FORMULA, frame, treat="d").fit()
    res = fitted(AIPW, frame, Line(), n_folds=1)
    np.testing.assert_allclose(res.outcome_predictions, linear.potential_outcomes, rtol=1e-10)
    assert res.effect == pytest.approx(linear.effect, rel=1e-10)


def test_seeds_come_from_repeat_arm_and_fold():
    frame = sample()
    first, again, threads = (
        AIPW.from_formula(FORMULA, frame, treat="d", learner=Noisy()).fit(n_jobs=n).outcome_predictions
        for n in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(first, threads)
    assert len(np.unique(first)) == 10  # two arms and five folds
    given = fitted(AIPW, frame, Noisy(random_state=3)).outcome_predictions
    assert len(np.unique(given)) == 1  # one seed for all


def test_a_mapping_has_a_learner_for_each_arm():
    frame = sample()
    lines, shares = fitted(AIPW, frame, Line()).outcome_predictions, fitted(AIPW, frame, Constant()).outcome_predictions
    both = fitted(AIPW, frame, {"0": Line(), 1: Constant()}).outcome_predictions
    np.testing.assert_array_equal(both["0"], lines["0"])
    np.testing.assert_array_equal(both["1"], shares["1"])
    with pytest.raises(OptionError, match=r"learner=\{'0': \.\.\., '1'"):
        fitted(AIPW, frame, {"0": Line()})


def test_a_classifier_gives_the_probability_of_one():
    frame = sample().assign(y=lambda of: (of["y"] > of["y"].median()).astype(int))
    found = fitted(AIPW, frame, Share(), n_folds=2).outcome_predictions
    assert found.to_numpy().min() > 0
    assert found.to_numpy().max() < 1
    with pytest.raises(OptionError, match='learner="smooth"'):
        fitted(AIPW, sample(), Share())


def test_new_rows_are_predicted_by_the_mean_over_the_folds():
    frame = sample()
    res = fitted(AIPW, frame, Line())
    fits = res._record.learned.fits[0].fitted
    new = frame.head(3)
    expected = [np.mean([model.predict(new[["x1", "x2"]].to_numpy()) for model in models], axis=0) for models in fits]
    np.testing.assert_allclose(res.predict(new), np.transpose(expected), rtol=1e-12)


def test_predictions_outside_of_the_range_are_moved_inside_with_a_warning():
    frame = sample().assign(y=lambda of: (of["y"] > of["y"].median()).astype(int))
    with pytest.warns(DesignWarning, match=r"or outside the limits[^$]*such as a classifier\."):
        res = fitted(AIPW, frame, Line(), family="binomial")
    counts = sample().assign(y=lambda of: np.maximum(of["y"].round(), 0))
    with pytest.warns(DesignWarning, match=r"or outside the limits[^$]*such as `learner=\"smooth\"`\."):
        fitted(AIPW, counts, Line(), family="poisson")
    used = res.potential_outcomes.to_numpy()
    np.testing.assert_allclose(used, np.clip(res.outcome_predictions, 1e-3, 1 - 1e-3), atol=1e-12)
    left, e = (frame["y"] - used[:, 1]) * (frame["d"] == 1), res.propensity_scores
    assert res.params["POM[1]"] == pytest.approx((used[:, 1] + left / e).mean(), rel=1e-9)


def test_a_learner_that_fails_says_where():
    with pytest.raises(LearnerError, match=r"learner Failing failed in group '0', fold 1 of 5: ZeroDivisionError"):
        fitted(AIPW, sample(), Failing())
    with pytest.raises(LearnerError, match=r"classifier FailingClassifier failed in fold 1 of 5: KeyError"):
        AIPW.from_formula(FORMULA, sample(), treat="d", propensity_score=FailingClassifier()).fit()


def test_a_classifier_without_classes_is_told_what_it_lacks():
    class Even:
        def fit(self, X, y):
            return self

        def predict_proba(self, X):
            return np.full((len(X), 2), 0.5)

    with pytest.raises(LearnerError, match="Even has no `classes_`"):
        AIPW.from_formula(FORMULA, sample(), treat="d", propensity_score=Even()).fit()


def test_predictions_that_are_no_numbers_are_refused():
    with pytest.raises(LearnerError, match='learner="smooth"'):
        fitted(AIPW, sample(), Constant(np.nan))


def test_folds_may_have_no_rows():
    linear_model = pytest.importorskip("sklearn.linear_model")
    frame = sample()
    count = int(frame.d.value_counts().max())
    each = fitted(AIPW, frame, linear_model.LinearRegression(), n_folds=count)
    more = fitted(AIPW, frame, linear_model.LinearRegression(), n_folds=count + 5)
    assert more.effect == pytest.approx(each.effect, rel=1e-9)


def test_predictions_that_are_constant_are_left_out_of_the_terms():
    frame = sample()
    plain = IPWRA.from_formula(FORMULA, frame, treat="d").fit()
    with pytest.warns(DesignWarning, match=r"Constant\[0\]"):
        res = fitted(IPWRA, frame, Constant(1.0))
    assert res.effect == pytest.approx(plain.effect, rel=1e-10)
    assert set(res.dropped_terms) == {"Constant[0]", "Constant[1]"}


def test_there_are_no_more_folds_than_clusters():
    frame, fits = sample().assign(g=np.arange(240) % 3), []

    class Counted(Line):
        def fit(self, X, y, sample_weight=None):
            fits.append(len(y))
            return super().fit(X, y, sample_weight)

    model = AIPW.from_formula(FORMULA, frame, treat="d", learner=Counted(), cluster="g", n_folds=10)
    with pytest.warns(DesignWarning, match="only 3 clusters"):
        res = model.fit()
    assert len(fits) == 2 * 3
    assert "3 folds" in str(res.summary())


def test_clusters_in_one_fold_that_hold_an_arm_are_refused():
    frame = sample().assign(g=lambda of: of["d"])
    with pytest.raises(LearnerError, match="n_folds="):
        AIPW.from_formula(FORMULA, frame, treat="d", learner=Line(), cluster="g", propensity="1").fit()


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"learner": Line}, OptionError, "learner=Line()"),
        ({"learner": "smoth"}, OptionError, "smooth"),
        ({"learner": []}, OptionError, 'learner="smooth"'),
        ({"learner": Line(), "smooth": True}, OptionError, "learner="),
        ({"learner_use": "terms"}, OptionError, 'learner="smooth"'),
        ({"n_repeats": 3}, OptionError, 'learner="smooth"'),
        ({"learner": Line(), "n_repeats": 2}, OptionError, "n_repeats=3"),
        ({"learner": Line(), "learner_use": "stack"}, OptionError, 'learner_use="replace"'),
        ({"learner": [Line(), Noisy()]}, OptionError, 'learner_use="terms"'),
        ({"learner": Margin()}, OptionError, "CalibratedClassifierCV(Margin())"),
        ({"learner": Line(), "formula": "y ~ 1", "propensity": "x1"}, OptionError, "y ~ x1 + x2"),
        ({"learner": Line(), "offset": "x2"}, OptionError, "offset="),
    ],
)
def test_what_is_refused(options, error, line):
    with pytest.raises(error) as caught:
        fitted(AIPW, sample(), options.pop("learner", None), **options)
    assert line in str(caught.value)


def test_estimators_say_what_they_do_with_predictions():
    frame = sample()
    with pytest.raises(OptionError, match="learner="):
        fitted(Hajek, frame, Line())
    with pytest.raises(OptionError, match='learner_use="terms"'):
        fitted(IPWRA, frame, Line(), learner_use="replace")
    with pytest.raises(OptionError, match='learner_use="stack"'):
        fitted(JRE, frame, Line(), learner_use="replace")
    with pytest.raises(UnavailableError, match="learner="):
        OutcomeRegression.from_formula(FORMULA, frame, treat="d").fit().outcome_predictions  # noqa: B018
