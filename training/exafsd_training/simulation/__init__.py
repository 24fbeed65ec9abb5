"""Simulated spectra: what training learns from, and what corrupts it."""
