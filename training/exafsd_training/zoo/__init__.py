"""The models that exafsd ships: their configurations."""
