"""Copying: completes an unfinished file with pieces from several peers at once.

The event loop asks the peers; a thread verifies the pieces and writes them in order.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from edgeserve.errors import in_words
from edgeserve.models.pull.sums import Summing, Sums
from edgeserve.orders.pulls import PIECE, Peer, SharedFile
from node.pulls.peers import UNREACHABLE, Holder, Peers
from node.pulls.pieces import AHEAD, LANES, PieceQueue

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often `progress` is called while nothing comes: it may end the copy."""

Progress = Callable[[int, frozenset[str]], None]
"""Called with the bytes that are there, and the ids of the peers that they are from."""


class NotCopied(Exception):
    """The copy is not complete; `peers` are those that have failed."""

    def __init__(self, why: str, peers: Iterable[Peer]) -> None:
        super().__init__(why)
        self.peers = frozenset(peers)


class _Piece:
    """A piece that came, and from where."""

    __slots__ = ("data", "number", "peer")

    def __init__(self, number: int, peer: Peer, data: bytes) -> None:
        self.number, self.peer, self.data = number, peer, data


class Lanes:
    """Asks peers for pieces; lives in the event loop. `arriving` is for the thread."""

    def __init__(self, peers: Peers, holders: Sequence[Holder], start: int) -> None:
        self.arriving: SimpleQueue[_Piece | None] = SimpleQueue()
        self.failed: dict[Peer, str] = {}
        self._peers, self._holders = peers, holders
        self._file = holders[0].file
        self.asked = [each.peer for each in holders]
        window = AHEAD * LANES * len(holders)
        self._pieces = PieceQueue(len(self._file.pieces), window, start)
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Ask until every piece is written, or no peer is left."""
        try:
            await asyncio.gather(
                *(self._lane(each) for each in self._holders for _ in range(LANES))
            )
        finally:
            self.arriving.put(None)

    async def _lane(self, holder: Holder) -> None:
        peer = holder.peer
        while not self._pieces.over and peer not in self.failed:
            number = self._pieces.choose(peer)
            if number is None:
                await self._news.wait()
                continue
            first = number * PIECE
            count = min(PIECE, self._file.size - first)
            try:
                data = await self._peers.part(holder, first, count)
            except UNREACHABLE as error:
                self._pieces.failed(peer, number)
                self._drop(peer, in_words(error))
            else:
                if self._pieces.came(number):
                    self.arriving.put(_Piece(number, peer, data))

    def wrote(self, number: int) -> None:
        """Note that a piece is written."""
        self._pieces.wrote(number)
        self._tell()

    def reject(self, piece: _Piece) -> None:
        """Ask for a damaged piece again, and its peer for nothing any longer."""
        self._pieces.rejected(piece.number)
        self._drop(piece.peer, "its copy is damaged")

    def _drop(self, peer: Peer, why: str) -> None:
        if peer not in self.failed:
            log.warning("%s sends no more of %s: %s", peer.name, self._file.name, why)
            self.failed[peer] = why
        self._tell()

    def _tell(self) -> None:
        """Wake every lane that waits for something to do."""
        self._news.set()
        self._news = asyncio.Event()


def copy_from(
    peers: Peers,
    holders: Sequence[Holder],
    part: Path,
    loop: asyncio.AbstractEventLoop,
    progress: Progress,
) -> Sums:
    """Complete `part`, in a thread. The holders agree about the file's pieces.

    Raises NotCopied, OSError, and what `progress` does.
    """
    file = holders[0].file
    with part.open("r+b") as sink:
        summing = _kept(sink, file)
        sink.truncate(sink.seek(summing.done))
        lanes = Lanes(peers, holders, summing.done // PIECE)
        running = asyncio.run_coroutine_threadsafe(lanes.run(), loop)
        try:
            _write(lanes, file, sink, summing, loop, progress)
        finally:
            running.cancel()
    sums = summing.sums
    if sums.sha256 != file.sha256:
        raise NotCopied(
            "their copies are not what they say", (each.peer for each in holders)
        )
    return sums


def _kept(sink: IO[bytes], file: SharedFile) -> Summing:
    """Read what is there already, as far as its pieces are right."""
    summing = Summing()
    for checksum in file.pieces:
        data = sink.read(min(PIECE, file.size - summing.done))
        if zlib.crc32(data) != checksum:
            break
        summing.add_piece(data, checksum)
    return summing


def _write(
    lanes: Lanes,
    file: SharedFile,
    sink: IO[bytes],
    summing: Summing,
    loop: asyncio.AbstractEventLoop,
    progress: Progress,
) -> None:
    """Write the pieces in order, those that are right."""
    held, senders = dict[int, bytes](), frozenset[str]()
    number = summing.done // PIECE
    progress(summing.done, senders)
    while number < len(file.pieces):
        try:
            piece = lanes.arriving.get(timeout=LOOK_SECONDS)
        except Empty:
            progress(summing.done, senders)
            continue
        if piece is None:
            # None has failed where asking did: then none is asked again.
            failed = lanes.failed or dict.fromkeys(lanes.asked, "it broke off")
            raise NotCopied("; ".join(failed.values()), failed)
        if zlib.crc32(piece.data) != file.pieces[piece.number]:
            loop.call_soon_threadsafe(lanes.reject, piece)
            continue
        held[piece.number] = piece.data
        senders |= {piece.peer.id}
        while number in held:
            data = held.pop(number)
            sink.write(data)
            summing.add_piece(data, file.pieces[number])
            loop.call_soon_threadsafe(lanes.wrote, number)
            number += 1
            progress(summing.done, senders)
