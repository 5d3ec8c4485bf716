"""Log-probs of responses: batches of tokens in, float32 log-probs of response tokens out."""
