"""Documents that explain a result: schemas by name, settings and cards by hash."""

import json
from collections import OrderedDict
from collections.abc import Mapping

from exafsd.contract.schemas import schemas
from exafsd.settings.analysis import Analysis

#: settings of runs that had some of their own; the oldest are forgotten
REMEMBERED = 256


class Library:
    """What the publisher hands out beside messages.

    Parameters
    ----------
    cards
        ``model.sha256`` of results to the bundle's card, as JSON.
    """

    def __init__(self, cards: Mapping[str, bytes] | None = None) -> None:
        self._cards = dict(cards or {})
        self._settings: OrderedDict[str, bytes] = OrderedDict()

    def keep_settings(self, analysis: Analysis) -> None:
        """Remember settings that results will name by their hash."""
        if analysis.sha256 in self._settings:
            return
        self._settings[analysis.sha256] = analysis.canonical
        while len(self._settings) > REMEMBERED:
            self._settings.popitem(last=False)

    def keep_cards(self, cards: Mapping[str, bytes]) -> None:
        """Hand out more cards; those of models that have left stay, since results name them."""
        self._cards = self._cards | dict(cards)

    def schema(self, name: str) -> bytes | None:
        """JSON schema of a file name in docs/schemas."""
        document = schemas().get(name)
        return None if document is None else json.dumps(document).encode()

    def settings(self, sha256: str) -> bytes | None:
        """Canonical JSON of settings; its SHA-256 is what it was asked by."""
        return self._settings.get(sha256)

    def card(self, sha256: str) -> bytes | None:
        """Card of the bundle whose graph has this hash."""
        return self._cards.get(sha256)
