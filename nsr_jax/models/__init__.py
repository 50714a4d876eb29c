"""The restoration network, how a config builds it, and what it costs."""
