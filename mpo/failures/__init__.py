"""What ends a stage that is no bug of ours, in one line."""
