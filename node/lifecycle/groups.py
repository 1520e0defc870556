"""Group orders: form and dissolve a group on its head, make room for a worker.

A group is an engine like others: planned beside them, evicted like them, restarted by
its supervisor. But it is not absent afterwards: the balancer that formed it decides
whether there is to be another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import Draining, NoNode
from edgeserve.models.memory import Need, compute_bytes, kv_bytes, layered
from edgeserve.orders.groups import (
    DissolveGroup,
    FormGroup,
    GroupMember,
    HostWorker,
    group_id,
)
from edgeserve.runtime.tasks import in_thread
from edgeserve.wire import EngineReport, Expected, Launch
from node.engines.base import EngineSpec
from node.groups.group import members_of
from node.groups.protocol import NO_PROGRAM
from node.groups.split import layers_of, placed
from node.groups.worker import Room, Worker
from node.groups.workers import NoWorker
from node.lifecycle.orders import Orders
from node.lifecycle.refusals import DoesNotFit, ModelForbidden, UnknownEngine
from node.lifecycle.running import Served
from node.models.library import Model
from node.planning.fit import BATCH, PLAIN, Fitted
from node.planning.fit import Room as MemoryRoom
from node.planning.planner import PlannedEngine, load_of
from node.state import NodeState

PAUSE = 0.1

BATCHES = (BATCH, 256, 64)
"""Tokens per computation: what a batch takes of the head's memory grows with it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A worker that was promised its memory: on GPUs, and after what has left."""

    worker: Worker
    threads: int
    room: Room


class GroupOrders:
    """Takes the orders that are about groups."""

    def __init__(
        self, state: NodeState, settings: NodeSettings, orders: Orders
    ) -> None:
        self._state, self._settings, self._orders = state, settings, orders

    async def form(self, order: FormGroup) -> EngineReport:
        """Become the head of a group. Raises a refusal, see `refusals`."""
        orders = self._orders
        id_ = group_id(order.variant)
        async with orders.ordered(id_):
            if not orders.workers.rpc:
                raise NoWorker(NO_PROGRAM)
            served = orders.running.find(id_)
            if served is None or not _is_same(served, order):
                await self._join(order)
        return self._report(id_)

    async def _join(self, order: FormGroup) -> None:
        """Plan the largest batch that has room, and load. Raises a refusal."""
        for batch in BATCHES:
            planned = await in_thread(self._planned, order, batch)
            try:
                await self._orders.loads.join(planned, order.why)
            except DoesNotFit:
                if batch == BATCHES[-1]:
                    raise
            else:
                return

    async def dissolve(self, order: DissolveGroup) -> None:
        """End a group once its requests have ended. Raises UnknownEngine."""
        orders, id_ = self._orders, group_id(order.variant)
        async with orders.ordered(id_):
            served = orders.running.find(id_)
            if id_ in orders.loads.pending:
                orders.loads.cancel(id_)
            elif served is None:
                raise UnknownEngine(id_, self._state.engines())
            if served is not None and not served.supervisor.retiring:
                why = f": {order.why}" if order.why else ""
                served.leave(f"its group is dissolved{why}")

    def _report(self, id_: str) -> EngineReport:
        return self._state.engines().get(id_) or self._orders.loads.report(id_)

    def _planned(self, order: FormGroup, batch: int) -> PlannedEngine:
        """Plan the engine of a head. Reads files. Raises a refusal."""
        loads, variant = self._orders.loads, order.variant
        assert loads.found is not None  # noqa: S101 - `ordered` has checked it
        models = loads.found.plan.models
        model = next((each for each in models if each.variant == variant), None)
        if model is None:
            raise UnknownEngine(variant, (each.variant for each in models))
        if self._orders.desired.wishes.forbids(model.model, variant):
            raise ModelForbidden(variant)
        gpus = tuple(each.name for each in loads.found.devices)
        return planned_head(
            order,
            model,
            batch=batch,
            gpus=gpus,
            threads=self._threads,
            members=members_of(order, self._state.identity.id, self._state.name),
        )

    @asynccontextmanager
    async def hosting(self, order: HostWorker) -> AsyncGenerator[Asked]:
        """Promise a worker its memory for the length of the block.

        Raises a refusal.
        """
        orders, promised = self._orders, ExitStack()
        async with orders.lock:
            orders.workers.check(order)
            found = orders.loads.found
            if found is None:
                raise NoNode("this node still looks for its models; try again")
            gpu = bool(found.devices)
            need = _need_of_worker(order.memory, gpu=gpu)
            planner = orders.loads.planner
            id_ = f"a worker for {order.name} ({order.variant})"
            leaving = await asyncio.to_thread(lambda: planner().hosted(id_, need))
            if self._state.draining:  # an order to sleep may have come meanwhile
                raise Draining
            why = f"it leaves, as {id_} needs its memory"
            promise = orders.workers.promise(order, gpu=gpu, leaving=leaving)
            worker = promised.enter_context(promise)
            for each in orders.running.served:
                if each.id in leaving and not each.supervisor.retiring:
                    each.leave(why)
            orders.tell()
        try:
            with promised:
                orders.woken.set()
                yield Asked(
                    worker=worker,
                    threads=self._threads,
                    room=lambda: self._left(worker.leaving),
                )
        finally:
            orders.stale = True  # what did not fit beside it may fit now
            orders.woken.set()

    @property
    def _threads(self) -> int:
        cpu = self._state.hardware.latest.cpu
        return self._settings.threads or cpu.physical_cores

    async def _left(self, ids: Sequence[str]) -> None:
        """Wait until engines have left; the shelf stops each once it is idle."""
        running = self._orders.running
        while any(running.find(each) for each in ids):  # noqa: ASYNC110 - see below
            await asyncio.sleep(PAUSE)  # the shelf has no event for it


def _is_same(served: Served, order: FormGroup) -> bool:
    """Whether this group runs, or starts, already; one that failed begins anew."""
    group, supervisor = served.planned.group, served.supervisor
    if group is None or supervisor.retiring or supervisor.report.state == "failed":
        return False
    return _as_asked(group) == _as_asked(order)


def _as_asked(order: FormGroup) -> FormGroup:
    """Return an order without what is told beside."""
    return msgspec.structs.replace(
        order, why="", reads=0.0, writes=0.0, load_seconds=0.0
    )


def _need_of_worker(memory: int, *, gpu: bool) -> Fitted:
    need = Need(
        weights=memory,
        kv=0,
        compute=0,
        process=0,
        slots=0,
        context=0,
        kv_type=PLAIN,
        ubatch=0,
    )
    launch = Launch(slots=0, context=0, batch=0, threads=0)
    here, there = (0, memory) if gpu else (memory, 0)
    return Fitted(launch=launch, need=need, memory=here, gpu_memory=there)


def planned_head(
    order: FormGroup,
    model: Model,
    *,
    batch: int,
    gpus: Sequence[str],
    threads: int,
    members: tuple[GroupMember, ...],
) -> PlannedEngine:
    """Return the engine of a head: all layers' launch, its own share's memory. Pure."""
    facts, whole = model.facts, layered(model.facts)
    if whole is None:
        raise DoesNotFit(order.variant, "it has no layers that could be divided")
    shares = [each.share for each in order.workers]
    layers = layers_of(whole.layers, order.share, shares)
    launch = placed(
        Launch(
            slots=order.slots,
            context=order.context,
            batch=min(order.context, batch),
            threads=threads,
            kv_type=PLAIN,
        ),
        layers,
        [each.node for each in order.workers],
        gpus,
    )
    tokens = order.slots * order.context
    need = Need(
        weights=whole.rest_bytes + layers.head * whole.layer_bytes,
        kv=kv_bytes(facts, tokens) * layers.head // whole.layers,
        compute=compute_bytes(facts, tokens, launch.batch),
        slots=order.slots,
        context=order.context,
        kv_type=PLAIN,
        ubatch=launch.batch,
    )
    expected = (
        Expected(read=order.reads, write=order.writes)
        if order.reads and order.writes
        else None
    )
    moved = need.weights + need.kv + need.compute if gpus else 0
    return PlannedEngine(
        spec=EngineSpec(
            id=group_id(order.variant),
            model=model.model,
            variant=order.variant,
            path=model.path,
            role="generate",
            abilities=("chat", "completion", "tools"),
            launch=launch,
            layers=whole.layers + 1,
            expected=expected,
            memory=need.total,
            created=model.written,
            layered=whole,
        ),
        load=load_of(model, "generate"),
        room=MemoryRoom(cores=threads, memory=need.total),
        fitted=Fitted(
            launch=launch, need=need, memory=need.total - moved, gpu_memory=moved
        ),
        speed=order.writes,
        group=order,
        members=members,
    )
