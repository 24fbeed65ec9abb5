"""Stored results as files for other programs."""
