"""Summary, tables, plots, plain words and the HTML page: functions of a fitted record."""
