"""A web page that shows what a daemon publishes; it is one subscriber and nothing more."""

from exafsd.dashboard.server import Dashboard

__all__ = ["Dashboard"]
