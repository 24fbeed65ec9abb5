"""Bluesky documents in, sweeps out."""

from exafsd.documents.callback import Callback
from exafsd.documents.inbox import Arrival, Inbox
from exafsd.documents.items import Item, Problem, RunBegan, RunEnded
from exafsd.documents.proxy import ProxySource
from exafsd.documents.router import Router

__all__ = [
    "Arrival",
    "Callback",
    "Inbox",
    "Item",
    "Problem",
    "ProxySource",
    "Router",
    "RunBegan",
    "RunEnded",
]
