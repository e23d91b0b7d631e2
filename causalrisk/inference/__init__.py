"""Standard errors, intervals, tests, effects of groups, predictions: functions of a fitted record."""
