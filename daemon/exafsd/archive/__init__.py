"""Archived runs: the journal, and databroker/tiled catalogs."""
