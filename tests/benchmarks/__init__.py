"""Measurements of time and memory, run by hand: `python -m tests.benchmarks.bench_peers`."""
