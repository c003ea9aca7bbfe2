"""What podproof costs, beside what its users would do instead: `python -m benchmarks`."""
