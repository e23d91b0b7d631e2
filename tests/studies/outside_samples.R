# Samples of benchmarks that others made, for `python -m tests.studies.study_outside --data FOLDER`.
#
#   Rscript tests/studies/outside_samples.R NPCI REALCAUSE FOLDER
#
# NPCI and REALCAUSE are copies of the repositories vdorie/npci and bradyneal/realcause of GitHub; the R packages
# aciccomp2016 and aciccomp2017 (vdorie/aciccomp, folders 2016 and 2017) must be installed. Written is a folder for each benchmark with a file for
# each sample: outcome y, treatment d, expected effect tau of the row, and covariates. Nothing of it may be passed on
# with this project: npci and aciccomp are under the GPL.

given <- commandArgs(trailingOnly = TRUE)
npci <- given[1]
realcause <- given[2]
target <- given[3]
REPLICATIONS <- 101:150  # of IHDP
SETTINGS <- seq(1, 77, 3)  # of ACIC 2016, simulation 1
SETTINGS_2017 <- seq(1, 32, 3)  # of ACIC 2017, simulation 1

write_sample <- function(benchmark, number, y, d, tau, x) {
  folder <- file.path(target, benchmark)
  dir.create(folder, recursive = TRUE, showWarnings = FALSE)
  names(x) <- gsub(".", "_", names(x), fixed = TRUE)
  file <- gzfile(file.path(folder, sprintf("%03d.csv.gz", number)))
  write.csv(format(cbind(data.frame(y = y, d = d, tau = tau), x), digits = 15, trim = TRUE), file,
            row.names = FALSE, quote = FALSE)
}

# IHDP: npci's own code, without the packages that only its estimators need.
simulation <- new.env()
for (name in c("util.R", "transform.R")) sys.source(file.path(npci, "R", name), simulation)
code <- readLines(file.path(npci, "examples/ihdp_sim/data.R"))
code <- gsub("npci:::", "", gsub("dbarts::makeModelMatrixFromDataFrame", "as.matrix", code, fixed = TRUE), fixed = TRUE)
eval(parse(text = code), simulation)
evalq(old <- getwd(), simulation)
setwd(file.path(npci, "examples/ihdp_sim"))
evalq(loadDataInCurrentEnvironment(), simulation)
setwd(simulation$old)
for (setting in c("A", "B", "C")) {
  for (replication in REPLICATIONS) {
    draw <- bquote(generateDataForIterInCurrentEnvironment(.(replication), x, z, 0.5, setting = .(setting)))
    eval(draw, simulation)
    with(simulation, write_sample(paste0("ihdp_", setting), replication, y, z.r, as.vector(mu.1 - mu.0), x))
  }
}

# ACIC: levels rarer than 2% join the commonest; dummies of the others; no column that is constant in 98% of rows.
commonest <- function(column) names(which.max(table(column)))
coded <- function(input) {
  columns <- list()
  for (name in names(input)) {
    column <- input[[name]]
    if (is.factor(column)) {
      share <- table(column) / length(column)
      for (level in setdiff(names(share)[share >= 0.02], commonest(column))) {
        columns[[paste0(name, "_", level)]] <- 1 * (column == level)
      }
    } else if (max(table(column)) < 0.98 * length(column)) {
      columns[[name]] <- column
    }
  }
  as.data.frame(columns)
}
library(aciccomp2016)
for (setting in SETTINGS) {
  drawn <- dgp_2016(input_2016, setting, 1)
  write_sample("acic_2016", setting, drawn$y, drawn$z, drawn$mu.1 - drawn$mu.0, coded(input_2016))
}
library(aciccomp2017)
for (setting in SETTINGS_2017) {
  drawn <- dgp_2017(setting, 1)
  write_sample("acic_2017", setting, drawn$y, drawn$z, drawn$alpha, coded(input_2017))
}

# RealCause: the treated of LaLonde with controls of the PSID, 100 samples; tau is the mean over them.
read_psid <- function(k) read.csv(file.path(realcause, sprintf("realcause_datasets/lalonde_psid_sample%d.csv", k)))
samples <- lapply(0:99, read_psid)
tau <- rowMeans(sapply(samples, function(sample) sample$ite))
for (k in 0:99) {
  sample <- samples[[k + 1]]
  write_sample("realcause_psid", k, sample$y, sample$t, tau, sample[, 1:8])
}
