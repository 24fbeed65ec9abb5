"""Bluesky documents and files in, sweeps out."""
