"""How one process leaves a port that another one goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Leave:
    """Hand it to `listen`. `left` is set once `begin` was called and nobody is left.

    After `begin` nothing new is accepted. Whoever is connected is served, and told with
    the next answer that the connection ends.
    """

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.begin: Callable[[], None] = lambda: None
