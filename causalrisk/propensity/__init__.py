"""The treatment model and the target population, and the importance weights they make."""
