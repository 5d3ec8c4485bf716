"""Training: response sets and a loss in, a trained policy out."""
