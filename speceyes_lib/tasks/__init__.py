"""Benchmarks on disk become `Sample`s: one file per benchmark, pictures by reference."""
