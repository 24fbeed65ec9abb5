"""`Live` by its former path; the composition of samples will have its rooms here."""

from exafsd.lazy import front_door

__getattr__ = front_door(__name__, {"Live": "exafsd.service.live:Live"})
