"""What the rows support: columns that both models keep, their ranks, and the size of a design."""
