"""Reference fits: Larch's feffit on measured spectra."""
