"""What a policy is worth: held-out ranking, sampled responses, win rates."""
