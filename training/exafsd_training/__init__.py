"""Training of the networks that exafsd reads spectra with."""
