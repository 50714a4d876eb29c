"""State and optimizer, sharding, the train step, checkpoints and the loop."""
