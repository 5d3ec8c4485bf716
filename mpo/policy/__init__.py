"""A language model as a policy: loaded, made to share prompts, one log-prob per response."""
