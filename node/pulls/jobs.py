"""Jobs: the pulls of this node, one after another, and how far each is."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import CommandError, EdgeserveError
from edgeserve.models.pull.arrival import remove_abandoned
from edgeserve.orders.pulls import PullOrder, PullReport
from node.pulls.fetching import Fetching
from node.pulls.job import Cancelled, Job
from node.pulls.sources import check

log = logging.getLogger(__name__)

OwnId = Callable[[], str]
Tell = Callable[[tuple[PullReport, ...]], None]

TELL_SECONDS = 0.5
"""Between two reports of how far a pull is."""

STOP_SECONDS = 5.0
"""How long a pull may take to stop."""

KEPT = 16
"""Pulls that are remembered after their end."""


class NoSuchPull(EdgeserveError):
    """The node has no pull of that id."""

    status = 404
    code = "pull_not_found"


class PullJobs:
    """The queue of pulls. `tell` gets their reports whenever they have changed."""

    def __init__(
        self,
        settings: NodeSettings,
        fetching: Fetching,
        own_id: OwnId,
        tell: Tell,
    ) -> None:
        self._folder = settings.models_dir
        self._fetching, self._own_id = fetching, own_id
        self._tell_changed = tell
        self._jobs: dict[str, Job] = {}
        self._told: tuple[PullReport, ...] = ()
        self._woken = asyncio.Event()

    @property
    def reports(self) -> tuple[PullReport, ...]:
        """How far each is, the oldest first."""
        return tuple(each.report for each in self._jobs.values())

    def order(self, order: PullOrder) -> PullReport:
        """Begin a pull, or return the one of the same source that goes on.

        One that was cancelled may still wait for its server: it is not joined.
        Raises BadRequest.
        """
        check(order)
        what = (order.source, order.revision)
        for job in self._jobs.values():
            same = (job.order.source, job.order.revision) == what
            if same and not job.ending:
                return job.report
        job = Job(secrets.token_hex(4), order)
        self._jobs[job.id] = job
        for old in [id_ for id_, each in self._jobs.items() if each.report.over][
            :-KEPT
        ]:
            del self._jobs[old]
        self._woken.set()
        self._tell()
        return job.report

    def cancel(self, id_: str) -> PullReport:
        """Stop a pull, and forget one that has ended. What has come is kept.

        Raises NoSuchPull.
        """
        job = self._jobs.get(id_)
        if job is None:
            raise NoSuchPull(f"this node has no pull {id_!r}")
        if job.report.over:
            del self._jobs[id_]
        else:
            job.stop()
        self._tell()
        return job.report

    async def work(self) -> None:
        """Do what was ordered, one pull after another, until cancelled."""
        for part in await asyncio.to_thread(remove_abandoned, self._folder):
            log.info("%s was abandoned, and is removed", part)
        while True:
            self._woken.clear()
            for job in tuple(self._jobs.values()):
                if not job.report.over:
                    await self._run(job)
                    self._woken.set()
            await self._woken.wait()

    async def _run(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        work = partial(self._fetching.pull, job, loop, self._own_id())
        pull = loop.run_in_executor(None, context.run, work)
        job.begin()
        log.info("pulls %s", job.order.source)
        try:
            while not pull.done():
                self._tell()
                await asyncio.wait({pull}, timeout=TELL_SECONDS)
            job.arrived(pull.result())
        except (Cancelled, CancelledError):
            job.ended("cancelled")
        except CommandError as error:
            job.ended("failed", str(error))
        finally:
            if not pull.done():
                job.stop()
                await asyncio.wait({pull}, timeout=STOP_SECONDS)
            if not job.report.over:
                job.ended("failed", "it broke off; the log of the node says why")
            _log_end(job.report)
            self._tell()

    def _tell(self) -> None:
        reports = self.reports
        if reports != self._told:
            self._told = reports
            self._tell_changed(reports)


def _log_end(report: PullReport) -> None:
    if report.state == "failed":
        log.warning("did not pull %s: %s", report.source, report.problem)
    elif report.state == "cancelled":
        log.info("pull of %s was cancelled; what has come is kept", report.source)
    else:
        log.info("pulled %s to %s", report.source, report.path)
