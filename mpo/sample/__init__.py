"""Drawing responses from a policy."""
