"""Loading rules of others: llama-swap's and Ollama's, one on each machine.

Neither knows of other machines, so a load balancer is before them that keeps to loaded
models: among machines that have the model loaded or loading, else among all, the one
with the fewest open requests. Both hand requests on at once; llama-server queues what
finds no slot.

llama-swap, `internal/router/scheduler/fifo.go` of 2026, one group in which models swap:
a request for the model that runs is served at once, even while others wait; one for
another waits until nothing runs, then the models swap and everything that waits for the
new one is served. Its limit of ten requests at once for a model is left out.

Ollama, `server/sched.go`: requests are taken in order. One whose model is not loaded
and does not fit waits for the first idle model, else for one to fall idle, to be
unloaded; all behind it wait, too ("we're queueing up all incoming requests, even if
they were for a different model that's loaded"), and so they do behind the second one
for a model that still loads. At most three models at once, unloaded after five idle
minutes. Among idle models of equal keep-alive its order is that of a hash table; here
the one that was unused for longest goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.simulate.engine import Event
from balancer.simulate.loading.fleets import HostFleet
from balancer.simulate.loading.memory import HostMemory
from balancer.simulate.world import Act, Start, Wake
from balancer.telemetry.trace import Call

KEEP_ALIVE = 300.0
"""Ollama's `OLLAMA_KEEP_ALIVE`."""

MOST_LOADED = 3
"""Ollama's `OLLAMA_MAX_LOADED_MODELS` for one GPU, and without one."""


class PerHost:
    """A rule that each machine follows by itself. `queues` have what waits there."""

    def __init__(self, fleet: HostFleet) -> None:
        self.fleet = fleet
        self.memory = HostMemory(fleet)
        self.queues: dict[str, list[Call]] = {host: [] for host in fleet.memory}

    def arrive(self, call: Call, now: float) -> Sequence[Act]:
        """Queue a request on a machine, and start what can start there."""
        hosted = self.fleet.engines[self._route(call.model)]
        self.queues[hosted.host].append(call)
        return self.wake(now)

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:
        """Count requests that end; others may start, or models swap."""
        if event.kind != "end":
            return ()
        acts = self.memory.end(engine, now)
        return [*acts, *self.wake(now)]

    def wake(self, now: float) -> Sequence[Act]:
        """Look at every machine."""
        acts = self.memory.advance(now)
        for host in self.queues:
            acts += self.serve(host, now)
        return acts

    def serve(self, host: str, now: float) -> list[Act]:
        """Start and load what the rule says."""
        raise NotImplementedError

    def _route(self, model: str) -> int:
        able = self.fleet.of(model)
        there = self.memory.of(model, "ready", "loading", "waiting")
        return min(there or able, key=lambda i: self._open(self.fleet.engines[i].host))

    def _open(self, host: str) -> int:
        held = self.memory.on(host, "ready", "leaving")
        running = sum(self.memory.engines[i].running for i in held)
        return running + len(self.queues[host])

    def engine(self, host: str, call: Call) -> int:
        """Return the engine of a call's model on a machine."""
        [found] = [
            i for i in self.fleet.of(call.model) if self.fleet.engines[i].host == host
        ]
        return found

    def start(self, call: Call, engine: int, now: float) -> Start:
        """Hand a request on."""
        self.queues[self.fleet.engines[engine].host].remove(call)
        self.memory.start(engine, now)
        return Start(call, engine)


class LlamaSwap(PerHost):
    """One model on each machine; it swaps when what runs has ended."""

    def serve(self, host: str, now: float) -> list[Act]:
        """Serve the model that runs; swap once nothing does."""
        acts = list[Act]()
        for call in tuple(self.queues[host]):
            engine = self.engine(host, call)
            held = self.memory.engines[engine]
            if held.state == "ready":
                acts.append(self.start(call, engine, now))
            elif held.state == "absent":
                others = self.memory.on(host, "ready")
                swaps = self.memory.on(host, "loading", "waiting")
                if not swaps and not any(
                    self.memory.engines[i].running for i in others
                ):
                    acts += self.memory.load(engine, others, now)
        return acts


class Ollama(PerHost):
    """As many models as fit, up to three; one request is looked at after the other.

    `first` has the request that each load was begun for.
    """

    def __init__(self, fleet: HostFleet) -> None:
        super().__init__(fleet)
        self.first: dict[int, Call] = {}

    def wake(self, now: float) -> Sequence[Act]:
        """Unload what has been idle for long, then look at every machine."""
        acts = list[Act]()
        for i, each in enumerate(self.memory.engines):
            idle = each.state == "ready" and not each.running
            if idle and now - each.used >= KEEP_ALIVE - 1e-6:
                self.memory.unloads += 1
                acts += self.memory.unload(i, now)
        return [*acts, *PerHost.wake(self, now)]

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:
        """Set the time of its unloading, too."""
        acts = list(PerHost.notice(self, event, engine, now))
        if event.kind == "end":
            acts.append(Wake(now + KEEP_ALIVE))
        return acts

    def serve(self, host: str, now: float) -> list[Act]:
        """Take the requests in order, until one has to wait."""
        acts = list[Act]()
        for engine in self.memory.on(host, "ready"):
            if call := self.first.pop(engine, None):
                acts.append(self.start(call, engine, now))
        pledged = {call.id for call in self.first.values()}
        for call in [each for each in self.queues[host] if each.id not in pledged]:
            engine = self.engine(host, call)
            if self.memory.engines[engine].state == "absent":
                acts += self._load(host, engine, now)
            match self.memory.engines[engine].state:
                case "ready":
                    acts.append(self.start(call, engine, now))
                case "loading" if engine not in self.first:
                    self.first[engine] = call
                case _:
                    break
        return acts

    def _load(self, host: str, engine: int, now: float) -> list[Act]:
        if self.memory.on(host, "loading", "waiting", "leaving"):
            return []
        loaded = self.memory.on(host, "ready")
        evicts = self.memory.evicts(engine) or []
        if not evicts and len(loaded) >= MOST_LOADED:
            idle = [i for i in loaded if not self.memory.engines[i].running] or loaded
            evicts = [min(idle, key=lambda i: self.memory.engines[i].used)]
        return self.memory.load(engine, evicts, now)
