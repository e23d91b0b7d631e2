"""Standard errors, intervals, tests, effects in groups and predictions: functions of a fitted record."""
