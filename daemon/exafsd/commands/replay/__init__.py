"""Archived runs through the pipeline of the live daemon again: ``exafsd replay``."""
