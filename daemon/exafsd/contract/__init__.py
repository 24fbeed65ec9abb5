"""What daemon, training, export and clients agree on."""

from exafsd.contract.card import (
    CARD_FILE,
    EQUATION_FILE,
    PINN_FILE,
    REFINEMENT_FILE,
    Card,
    file_sha256,
)
from exafsd.contract.frames import FrameError, Message, decode, encode
from exafsd.contract.grid import ETOK, K_GRID, K_SIZE, K_STEP, rows_to_grid, to_grid
from exafsd.contract.recipe import Autobk, FitWindow, PreEdge, Recipe, Xftf

__all__ = [
    "CARD_FILE",
    "EQUATION_FILE",
    "ETOK",
    "K_GRID",
    "K_SIZE",
    "K_STEP",
    "PINN_FILE",
    "REFINEMENT_FILE",
    "Autobk",
    "Card",
    "FitWindow",
    "FrameError",
    "Message",
    "PreEdge",
    "Recipe",
    "Xftf",
    "decode",
    "encode",
    "file_sha256",
    "rows_to_grid",
    "to_grid",
]
