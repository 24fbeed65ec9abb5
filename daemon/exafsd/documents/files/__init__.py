"""Spectra from files. `READERS` in `reading` has the formats."""
