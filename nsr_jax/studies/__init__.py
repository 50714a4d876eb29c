"""A sweep of training runs: what it consists of, how its runs are started, and what they show."""
