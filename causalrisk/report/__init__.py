"""Summary, tables, plots, plain words and the HTML page: functions of a fit (`FitRecord`)."""
