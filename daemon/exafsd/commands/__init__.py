"""What the ``exafsd`` command does."""
