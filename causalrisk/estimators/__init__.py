"""The effect and its influence function; `fit` runs the stages in order."""
