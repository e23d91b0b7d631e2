"""Standard errors, intervals, tests, effects in groups and predictions: functions of a fit (`FitRecord`)."""
