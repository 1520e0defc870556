"""Adoption: find servers of other programs on this machine, and recognise them.

A port costs a connection every few seconds. Only what listens is asked, by GETs: until
it is recognised, and then seldom, since another program may have taken its port. How
well an adopted server answers is for balancers to see.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from edgeserve.errors import EdgeserveError, SettingsError
from edgeserve.http.types import Origin, Upstream
from edgeserve.orders.servers import AdoptedServer
from edgeserve.runtime.background import background, declared
from edgeserve.runtime.log import say as printed
from edgeserve.servers.asking import get, read_key
from edgeserve.servers.profiles.base import Profile, Reply
from edgeserve.servers.recognition import WHERE_KEY, look, recognise
from node.adoption.places import ServerPlace

EVERY_SECONDS = 3.0
"""Between two looks at all places."""

AGAIN_SECONDS = 15.0
"""Until something that was not recognised is asked again, unless it is restarted."""

CHECK_SECONDS = 60.0
"""The same for what was recognised."""

CONNECT_SECONDS = 1.0

ASK_SECONDS = 10.0
"""Longest time for all answers of one server."""

FIND = declared("server adoption")

Say = Callable[[str], None]
OnChange = Callable[[tuple["Adopted", ...], tuple[str, ...]], None]
"""Gets all that are adopted, and why servers that are named are not."""

WhoseOfOurs = Callable[[ServerPlace], str]
"""Says which process of ours listens at a place, "" for none."""


@dataclass(frozen=True)
class Adopted:
    """A server that was found and recognised, and the key that it asks for."""

    place: ServerPlace
    report: AdoptedServer
    key: str


@asynccontextmanager
async def finding(
    places: Sequence[ServerPlace],
    upstream: Upstream,
    on_change: OnChange,
    ours: WhoseOfOurs,
    say: Say = printed,
) -> AsyncGenerator[None]:
    """Look at the places again and again until the block ends; `say` what comes."""
    if not places:
        yield
        return
    async with background() as tasks:
        finder = Finder(places, upstream, on_change, ours, say)
        tasks.start(FIND, finder.run)
        yield


class Finder:
    """Looks at every place, and tells when what is there changes."""

    def __init__(
        self,
        places: Sequence[ServerPlace],
        upstream: Upstream,
        on_change: OnChange,
        ours: WhoseOfOurs,
        say: Say = printed,
    ) -> None:
        self._ports = [_Port(place, upstream, ours, say) for place in places]
        self._on_change = on_change
        self._told: tuple[tuple[Adopted, ...], tuple[str, ...]] = (), ()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Look at all places once."""
        await asyncio.gather(*(each.look() for each in self._ports))
        adopted = list[Adopted]()
        for port in self._ports:
            if port.found is not None:
                taken = {each.name for each in self._ports if each is not port}
                adopted.append(port.adopted(port.found, taken))
        named = [each for each in self._ports if each.place.named]
        now = tuple(adopted), tuple(each.why for each in named if each.why)
        if now != self._told:
            self._told = now
            self._on_change(*now)


@dataclass(frozen=True)
class _Found:
    profile: Profile
    key: str


class _Port:
    """What is known of one place. `why` it is not adopted, "" for nothing to say."""

    def __init__(
        self, place: ServerPlace, upstream: Upstream, ours: WhoseOfOurs, say: Say
    ) -> None:
        self.place = place
        self.found: _Found | None = None
        self.why = ""
        self.name = ""
        self._upstream = upstream
        self._ours, self._say = ours, say
        self._again = 0.0
        self._loop = asyncio.get_running_loop()

    async def look(self) -> None:
        """See whether something listens, and what it is."""
        if ours := self._ours(self.place):
            self._gone(f"{self.place.setting.url} is {ours}")
        elif not await listens(self.place.origin):
            away = f"{self.place.setting.url} is not there: nothing listens"
            self._gone(away if self.place.named else "")
        elif self._loop.time() >= self._again:
            await self._recognise()

    def adopted(self, found: _Found, taken: Collection[str]) -> Adopted:
        """Return what balancers get; its name is none of those that are `taken`."""
        place = self.place
        port, kind, known = place.origin.port, found.profile.kind, place.setting
        if not self.name:
            name = known.name or kind
            self.name = f"{name}:{port}" if name in taken else name
        report = AdoptedServer(
            port=port,
            kind=kind,
            name=self.name,
            width=known.width,
            context=known.context,
            models=known.models,
            abilities=known.abilities,
            last_resort=known.last_resort,
        )
        return Adopted(place, report, found.key)

    async def _recognise(self) -> None:
        url, why = self.place.setting.url, ""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await self._ask(self.place)
        except TimeoutError:
            if self.found is None:  # else it has much to do
                why = f"{url} did not answer within {ASK_SECONDS:g} s"
        except (EdgeserveError, SettingsError) as error:
            why = str(error).replace(WHERE_KEY, "as `key_file` in an [[adopt]] table")
        if why:
            self._gone(why)
        self._again = self._loop.time() + (AGAIN_SECONDS if why else CHECK_SECONDS)

    async def _ask(self, place: ServerPlace) -> None:
        key, url = read_key(place.setting), place.setting.url

        async def ask(path: str) -> Reply:
            return await get(self._upstream, place.origin, path, key, url)

        found = await recognise(ask, place.setting, place.base)
        replies = await look(ask, found, place.base)
        before, self.why = self.found, ""
        self.found = _Found(found.profile, key)
        if before is not None and before.profile == found.profile:
            return
        self.name = ""
        count = len(found.profile.models(replies))
        models = "1 model" if count == 1 else f"{count} models"
        self._say(f"adopts {found.profile.kind} at {url}: {models}")

    def _gone(self, why: str) -> None:
        """Note that nothing is adopted there, and why, "" where that is no news."""
        if self.found is not None:
            self._say(f"{self.found.profile.kind} at {self.place.setting.url} is gone")
        self.found, self._again, self.name = None, 0.0, ""
        if why and why != self.why:
            self._say(f"not adopted: {why}")
        self.why = why


async def listens(origin: Origin) -> bool:
    """Whether something takes connections there, or is too busy to."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(origin.host, origin.port)
    except TimeoutError:
        return True
    except OSError:
        return False
    writer.close()
    return True
