"""What a run shows while it runs: progress files, the console, metrics files and Weights & Biases."""
