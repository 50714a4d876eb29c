"""A sweep of training runs: its definition, how its runs are started, and their results."""
