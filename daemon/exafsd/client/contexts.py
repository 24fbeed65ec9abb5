"""What is closed at the end of a ``with``, and iterated by receiving, plain or asynchronous."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Self

from exafsd.contract.frames import Message


class Closing(ABC):
    """Has sockets to close."""

    @abstractmethod
    def close(self) -> None:
        """Close the sockets."""


class Context(Closing):
    """Closed at the end of a ``with``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Messages(Context):
    """Iterated without an end."""

    @abstractmethod
    def receive(self, timeout: float | None = None) -> Message | None:
        """Next message, or None when there was none within `timeout` s."""

    def __iter__(self) -> Iterator[Message]:
        while True:
            message = self.receive()
            if message is not None:
                yield message


class AsyncMessages(Closing):
    """`Messages` for asyncio."""

    @abstractmethod
    async def receive(self, timeout: float | None = None) -> Message | None:
        """Next message, or None when there was none within `timeout` s."""

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            message = await self.receive()
            if message is not None:
                yield message

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
