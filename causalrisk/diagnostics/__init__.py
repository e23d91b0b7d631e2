"""What can be wrong with a fit: functions of a fitted record that return tables."""
