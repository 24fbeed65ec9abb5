"""Columns and files to mu(E), and mu(E) to chi(k) by Larch."""
