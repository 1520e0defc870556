"""Engine model: what runs on one engine, and when a slot comes free. Pure.

Between two events every sequence advances at the learned rate; progress, first tokens
and ends correct the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapreplace
from math import inf

from balancer.prediction.learning import SpeedLearner
from balancer.prediction.prefix_cache import CachedPrefix, HostCache, PrefixCacheIndex
from balancer.prediction.running import RunningRequest, RunningRequests, delay
from balancer.prediction.servers.width import LearnedWidth
from balancer.prediction.speed import Speed
from balancer.prediction.weights import WEIGHTS, Weights
from edgeserve.served import Served, first_trust

SURE_TOKENS = 32
"""A smaller predicted hit says nothing about how well hits are predicted."""


@dataclass(slots=True, eq=False)
class EngineModel:
    """One engine: its speed, its slots, its running requests.

    `scale` stretches every predicted second: throttling, battery, a busy owner. `pins`:
    a request may name its slot (`id_slot`), which needs a context for each slot and no
    host cache. `foreign` counts taken slots that hold no request of this model's. The
    `width` of a server may be learned, and shrink below the `places` that it has.

    Events come far more often than decisions, so the future is computed only when it is
    asked for, and then once.
    """

    name: str
    model: str
    slots: int
    learner: SpeedLearner
    cache_index: PrefixCacheIndex
    batch: int = 256
    context: int = 8192
    pins: bool = True
    host: HostCache | None = None
    served: Served | None = None
    width: LearnedWidth | None = None
    scale: float = 1.0
    risk: float = 0.0
    foreign: int = 0
    queued: int = 0
    load: RunningRequests = field(default_factory=RunningRequests)
    places: list[int] = field(default_factory=list[int])
    numbers: dict[int, int] = field(default_factory=dict[int, int])  # by their places
    resting: dict[int, None] = field(default_factory=dict[int, None])
    """Places of the slots without a request, the longest idle first."""
    mask: int = 0
    now: float = 0.0
    learned: float = -inf  # when it was last learned from
    trust: float = 1.0
    """Tokens found cached, divided by tokens predicted to be."""
    free_at: float = 0.0
    """When the next slot comes free, reservations included."""
    read_until: float = 0.0
    """When all prompts will have been read."""
    next_slot: int = -1
    """The slot that comes free first."""
    stale: bool = True  # by reservations, or a change in speed or load
    weights: Weights = WEIGHTS
    per_read: float = 0.0
    per_context: float = 0.0
    """Seconds to read a token, and what each earlier token adds."""
    few_start: float = 0.0
    per_few: float = 0.0
    """What a short prefill adds: once, and for each token and earlier token."""
    per_token: float = 0.0
    """Seconds between two tokens of an answer if one more request joins."""
    half_step: float = 0.0
    """Seconds that a prompt waits for the tokens of running answers."""
    read_price: float = 1.0
    token_price: float = 0.0
    """The total cost of a second of reading, and of a token of an answer."""
    watts: float = 0.0  # at work, above its idle machine
    gone: bool = False  # its places may belong to another engine by now
    moved: bool = False  # at `now` something happened that is not in the forecast
    _frees: list[float] = field(default_factory=list[float])  # a heap, empty if unused
    _base_price: float = 1.0

    def __post_init__(self) -> None:
        self.resize(self.slots, self.now)
        self.trust = first_trust(self.served)
        self._foresee()

    @property
    def speed(self) -> Speed:
        """Its expected speed."""
        return self.learner.speed

    @property
    def taken(self) -> int:
        """Slots at work, also for other balancers."""
        return min(self.slots, self.load.slots + self.foreign)

    def idle_slots(self) -> list[int]:
        """Return the numbers of the idle slots."""
        idle = self.cache_index.idle
        return [slot for slot, at in enumerate(self.places) if idle & (1 << at)]

    def advance(self, now: float) -> None:
        """Let time pass at the learned speed; something has happened."""
        self.cache_index.log.note(self)
        seconds = now - self.now
        if seconds > 0:
            self.now = now
            self.load.passes(seconds, self._step(), self.scale)

    def _step(self) -> float:
        """Seconds between two tokens of each answer."""
        speed, load = self.learner.speed, self.load
        reading = self.batch * speed.prefill if load.reader is not None else 0.0
        return max(speed.token_seconds(load.writing), reading) * self.scale

    def refresh(self, now: float) -> None:
        """Renew the forecast where something has changed, or comes late."""
        if self.stale:
            self.advance(now)
            self._foresee()
        elif self.moved:
            self._foresee()
        if self.free_at <= now and self.taken == self.slots:
            self.advance(now)
            self._foresee()

    def _foresee(self) -> None:
        """Compute when prompts will be read and slots come free, as of `self.now`."""
        self.stale = self.moved = False
        self.read_until = self.now + self.load.unread(len(self.places)) * self.scale
        self._frees.clear()
        if (taken := self.taken) < self.slots:
            self.free_at, self.next_slot = 0.0, -1
        else:
            self._foresee_ends()
        self._price(min(taken, self.slots - 1))

    def _foresee_ends(self) -> None:
        per_token = self.learner.speed.token_seconds(self.taken) * self.scale
        self._frees, self.next_slot = self.load.frees(
            self.slots, self.foreign, per_token, self.now, self.read_until
        )
        self.free_at = self._frees[0]

    def _price(self, running: int) -> None:
        """Compute the prices that do not depend on the request."""
        speed, scale = self.learner.speed, self.scale
        self.per_read = speed.prefill * scale
        self.per_context = speed.attention * scale
        self.few_start, self.per_few = speed.few_start * scale, speed.few * scale
        self.per_token = speed.token_seconds(running + 1) * scale
        self.half_step = speed.half_step(self.load.writing) * scale
        self._base_price = 1 + self.weights.others * running + self.risk
        self._price_queue()

    def _price_queue(self) -> None:
        share = self.weights.queue * self.queued / self.slots
        self.read_price = self._base_price + share
        self.token_price = (self.weights.write + share) * self.per_token

    def free(self, slots: int) -> float:
        """When so many slots will be free at once; call after `refresh`."""
        if slots <= self.slots - self.taken and not self._frees:
            return 0.0
        if not self._frees:
            self._foresee_ends()
        return sorted(self._frees)[slots - 1]

    def ahead(self, slot: int, own: float, now: float) -> float:
        """Seconds that what runs delays a prompt that takes `own` seconds in a slot."""
        every = self.read_until - now
        if every <= 0.0:
            return self.half_step
        load, batch = self.load, self.batch * self.per_read
        below = 0.0
        if load.reader is not None and load.reader.slot < slot:
            below = every if len(load.reading) == 1 else load.unread(slot) * self.scale
        left, share = batch - now + load.batch_at, self.learner.contention
        return share * delay(below, every, own, left, batch)

    def reserve(self, now: float, seconds: float) -> None:
        """Reserve the slot that comes free next for a waiting request."""
        if not self._frees:
            self._foresee_ends()
        heapreplace(self._frees, max(now, self._frees[0]) + seconds)
        self.free_at = self._frees[0]
        self.queued += 1
        self.stale = True
        self.cache_index.log.note(self)
        self._price_queue()

    def release(self) -> None:
        """Drop one reservation."""
        self.queued -= 1
        self.cache_index.log.note(self)
        self._price_queue()

    def start(self, request: RunningRequest, now: float) -> None:
        """Send a request to a slot, which then holds its prompt and nothing else."""
        self.advance(now)
        self.load.start(request)
        # Another may be sent at the same moment, without a new forecast.
        left = self.read_until if self.read_until > now else now
        self.read_until = left + request.reading * self.scale
        place = self.places[request.slot]
        for each in (place, *[self.places[other] for other in request.others]):
            self.cache_index.occupy(each)
            self.resting.pop(each, None)
        if self.host is not None:
            self.host.swap(place, request.prompt, request.tokens)
        self.cache_index.put(
            place,
            CachedPrefix(request.prompt, request.tokens, 0.0, now, now, request.client),
        )
        self.moved = True
        if self.taken == self.slots and self.cache_index.idle & self.mask:
            self._foresee_ends()  # others have what is idle here, or it is no slot

    def began(
        self, request: RunningRequest, now: float, tokens: int, cached: int
    ) -> None:
        """Note that the engine begins a prompt: its length, and how much was cached."""
        self.advance(now)
        self.counted(request, tokens, cached)
        self.load.begins(request, now)
        request.reading = self.speed.prefill_seconds(tokens - cached, cached)
        self.moved = True

    def counted(self, request: RunningRequest, tokens: int, cached: int) -> None:
        """Note how long a prompt is, and how much of it was cached."""
        if request.cached >= SURE_TOKENS:
            self.trust += 0.1 * (min(cached / request.cached, 1.0) - self.trust)
        elif self.served is not None and cached - request.cached >= SURE_TOKENS:
            self.trust += 0.5 * (1 - self.trust)  # it has a cache after all
        request.tokens, request.cached = tokens, cached
        content = self.cache_index.contents[self.places[request.slot]]
        if content is not None:
            content.tokens = tokens

    def progressed(self, request: RunningRequest, now: float, processed: int) -> None:
        """Note how many prompt tokens are read, cached ones included."""
        self.advance(now)
        self.load.batched(request, now, processed, self.per_read)
        left = max(0.0, request.tokens - processed)
        request.reading = self.speed.prefill_seconds(left, processed)
        self.moved = True

    def wrote(self, request: RunningRequest, now: float) -> None:
        """Note the first token."""
        self.advance(now)
        self.load.wrote(request, now)
        self.moved = True

    def end(
        self, request: RunningRequest, now: float, answer: float | None = None
    ) -> None:
        """Free the slots; the first one holds the prompt with the answer.

        `answer` is its length in tokens, None where it is known only from the time.
        """
        self.advance(now)
        self._free(request)
        # The last token was sampled, but not read back into the cache.
        answer = max(0.0, (request.done if answer is None else answer) - 1)
        content = self.cache_index.contents[self.places[request.slot]]
        if content is not None:
            content.answer, content.since, content.used = answer, now, now
            content.tokens = request.tokens + answer
        self.moved = True

    def drop(self, request: RunningRequest, now: float) -> None:
        """Free the slots of a request that was given up, or whose engine failed."""
        if request.first is not None:
            self.end(request, now)
            return
        # How far the prompt was read is unknown: count on none of it.
        self.advance(now)
        self._free(request)
        self.cache_index.forget(self.places[request.slot])
        self.moved = True

    def _free(self, request: RunningRequest) -> None:
        self.load.end(request)
        for slot in (request.slot, *request.others):
            place = self.places[slot]
            self.cache_index.release(place)
            self.resting[place] = None

    def resize(self, slots: int, now: float) -> None:
        """Take so many requests at once from now on; what slots hold stays known."""
        more = self.cache_index.add(max(0, slots - len(self.places)))
        self.places += more
        self.cache_index.owners.update(dict.fromkeys(more, self))
        self.resting |= dict.fromkeys(more)
        self.numbers = {place: slot for slot, place in enumerate(self.places)}
        self.mask = sum(1 << place for place in self.places)
        self.advance(now)
        self.slots, self.stale = slots, True

    def restarted(self) -> None:
        """Note that the engine restarted: its caches are empty."""
        for place in self.places:
            self.cache_index.forget(place)
        if self.host is not None:
            self.host.clear()
        self.trust = first_trust(self.served)

    def remove(self) -> None:
        """Remove the engine for good."""
        self.restarted()
        self.cache_index.remove(self.places)
        self.gone = True
