"""The joint robust estimator: objective, training, influence function, anchor, batched refit."""
