"""What samples are made of, by measured references; and `Live` by its former path."""

from exafsd.lazy import front_door

__getattr__ = front_door(__name__, {"Live": "exafsd.service.live:Live"})
