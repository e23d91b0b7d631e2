"""Design: turn formulas or arrays into one frozen set of arrays. Only this package calls patsy."""
