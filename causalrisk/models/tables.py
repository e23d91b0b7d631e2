"""Tables for papers as the package has them: those of `report`, with advice on the keywords of other packages."""

from causalrisk.models.keywords import check_keywords
from causalrisk.report.tables import etable as of_fits
from causalrisk.report.tables import table_one as of_covariates

etable = check_keywords("tables")(of_fits.etable)
table_one = check_keywords("tables")(of_covariates.table_one)
