"""Metrics, protocols, inference, tables and pictures."""
