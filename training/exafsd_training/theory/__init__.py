"""The theory of a spectrum: structures, FEFF's paths, shells, and what theta means."""
