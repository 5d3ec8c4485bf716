"""Side-by-side measurements: ratios of two runs on one machine, one after the other. Not part of the package."""
