// Order of what a search finds. Sphinx gives every page that has the words the same score and sorts equal scores by
// title; here tasks come before theory, lists of what happened come last, and a part of a name counts less than a word.
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) => {
    const part = kind === "object" && score < Scorer.objNameMatch + Scorer.objPrio[1];
    const prefix = Object.keys(Scorer.pages).find((prefix) => docname.startsWith(prefix));
    return score - (part ? 8 : 0) + (Scorer.pages[prefix] ?? 0);
  },

  // The first prefix of the name of a page counts.
  pages: {
    "explanation/jre": 2.5,
    "howto/weights_clusters": 3.5,
    "howto/propensity_scores": 3.5,
    "howto/small_samples": 3.6,
    "howto/coming_from": 2.5,
    "howto/cite": 0,
    "howto/": 3,
    "tutorials/problem_set": -1,
    "tutorials/solutions": -1,
    "tutorials/": 2,
    "index": 1,
    "reference/api/": 1,
    "reference/command_line": 1,
    "reference/datasets": 1,
    "reference/": -1,
    "development/": -2,
    "changes": -3,
  },

  // Sphinx's own values.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
