"""Group supervisor: an engine that runs only while all workers of its group are there.

That one of them is lost is no fault of the model, and never leads to quarantine.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import structs

from edgeserve.runtime.tasks import first_of
from edgeserve.wire import EngineReport, EngineState
from node.engines.base import Engine
from node.engines.process import Process
from node.groups.group import Group, GroupEngine, MemberLost
from node.supervision.supervisor import Supervisor

UNKNOWN = "its engine ended; whether a member was lost is not known yet"


class GroupSupervisor(Supervisor):
    """The supervisor of a head's engine; see `Supervisor` for the other settings."""

    def __init__(self, group: Group, *, engine: Engine, **more: Any) -> None:
        self._group = group
        super().__init__(engine=GroupEngine(engine, group), **more)

    @property
    def report(self) -> EngineReport:
        """The engine's state, and that of the members."""
        report = super().report
        placement = report.placement
        if placement is not None:
            memory = self._group.named(placement.memory)
            placement = structs.replace(placement, memory=memory)
        members = self._group.members
        return structs.replace(report, group=members, placement=placement)

    async def _run_process(self) -> str:
        """Run one process with the workers that it needs; returns why it ended."""
        self._become("loading", self._reason)
        try:
            async with self._group.running():
                return await self._run_in_group()
        except MemberLost as error:
            self._epoch += 1
            return self._deserted(str(error))

    async def _run_in_group(self) -> str:
        reason = await first_of(
            super()._run_process(), self._group.lost(), self._leave()
        )
        return self._deserted(reason) if self._group.which else reason

    async def _leave(self) -> str:
        """Take no more requests once a member shuts down; the shelf ends the engine."""
        self.retire(await self._group.leaving(), "leaving")
        await asyncio.Event().wait()
        return ""

    async def _ended(self, process: Process) -> str:
        """Return why it ended: llama.cpp does at once where a worker has gone.

        The news of that may take longer, so it waits a moment before it blames.
        """
        await process.ended()
        self._lost("failed", UNKNOWN, "killed")
        lost = await self._group.blamed()
        return lost or await super()._ended(process)

    def _deserted(self, why: str) -> str:
        self._lost("failed", why, "killed")
        self._lost_requests = True  # so it is never quarantined
        return why

    def _become(self, state: EngineState, reason: str | None) -> None:
        if state == "ready":
            self._group.ready()
        super()._become(state, reason)
