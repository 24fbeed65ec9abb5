"""Model bundles and what they read from spectra."""
