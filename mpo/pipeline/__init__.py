"""From a configuration to a report: stages planned, built in processes, collected."""
