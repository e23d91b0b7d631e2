# A stratum that was sampled whole: one first-stage unit of one in the population. Writes r_survey_whole_stratum.csv.
# Run in this folder: Rscript r_survey_whole_stratum.R   (R 4.5.0, survey 4.4-2)
library(survey)
data <- read.csv("survey_twopsu.csv")
data <- data[data$stratum > 1 | data$psu == 1, ]
data$fpc[data$stratum == 1] <- 1
design <- svydesign(ids = ~psu, strata = ~stratum, weights = ~pw, fpc = ~fpc, nest = TRUE, data = data)
rows <- lapply(c("fail", "certainty", "adjust", "average"), function(lonely) {
  options(survey.lonely.psu = lonely)
  fit <- svyglm(y ~ d, design)
  data.frame(lonely = lonely, effect = unname(coef(fit)["d"]), se = unname(SE(fit)["d"]))
})
write.csv(format(do.call(rbind, rows), digits = 15), "r_survey_whole_stratum.csv", row.names = FALSE, quote = FALSE)
