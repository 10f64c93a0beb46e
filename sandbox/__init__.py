"""A private Docker engine and sample apps, for the demo, the tests and the benchmarks."""
