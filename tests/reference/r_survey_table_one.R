# Writes r_survey_table_one.csv: Table 1 of cattaneo2 under weights, by R's survey and stats.
# births.csv is load_cattaneo2() without its index; run  Rscript r_survey_table_one.R births.csv r_survey_table_one.csv
library(survey)
paths <- commandArgs(trailingOnly = TRUE)
births <- read.csv(paths[1])
births$w <- (1 + births$mage %% 5) / (1 + births$medu %% 3)
numbers <- c("mage", "medu", "fage", "nprenatal")
binary <- c("mmarried", "alcohol", "fbaby")
out <- NULL
for (x in c(numbers, binary)) {
  of_arm <- list()
  for (a in 0:1) {
    d <- births[births$mbsmoke == a, ]
    survey <- svydesign(ids = ~1, weights = ~w, data = d)
    formula <- as.formula(paste("~", x))
    q <- as.numeric(coef(svyquantile(formula, survey, c(0.25, 0.5, 0.75), qrule = "math", ci = FALSE)))
    variance <- cov.wt(d[, x, drop = FALSE], wt = d$w / sum(d$w), method = "unbiased")$cov[1, 1]
    p <- as.numeric(coef(svymean(formula, survey)))
    of_arm[[a + 1]] <- c(p, if (x %in% binary) p * (1 - p) else variance)
    out <- rbind(out, data.frame(
      covariate = x, arm = a, n = nrow(d), mean = p, sd = sqrt(variance),
      sd_survey = sqrt(as.numeric(coef(svyvar(formula, survey)))), q25 = q[1], q50 = q[2], q75 = q[3], smd = NA
    ))
  }
  out$smd[nrow(out)] <- (of_arm[[2]][1] - of_arm[[1]][1]) / sqrt((of_arm[[1]][2] + of_arm[[2]][2]) / 2)
}
out[-1] <- signif(out[-1], 14)
write.csv(out, paths[2], row.names = FALSE, quote = FALSE)
