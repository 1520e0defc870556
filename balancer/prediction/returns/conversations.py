"""Conversations: which of them pause, and the chance that one is continued. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence

from balancer.dialects.prompt import Prompt
from balancer.prediction.returns.pauses import ENDS, SPANS, Pauses, span_of

CLIENTS = 1024
"""Most clients whose pauses are remembered."""

FRESH = 5.0
"""Seconds for which the chances to be missed stay as they were computed."""


class Returns:
    """The pauses of one model's conversations.

    A conversation is remembered by the hash of its last prompt, on any engine, so that
    one whose slot was taken counts like any other.
    """

    REMEMBERED = 4096

    def __init__(self) -> None:
        self.all = Pauses()
        self._clients: OrderedDict[str, Pauses] = OrderedDict()
        self._since: dict[bytes, tuple[float, str, float]] = {}
        self._spans = [deque[tuple[bytes, float]]() for _ in range(SPANS)]
        """The pauses that have reached each span and not gone beyond it."""

    def of(self, client: str) -> Pauses:
        """Return the pauses of a client, or of all where it has had none."""
        return self._clients.get(client) or self.all

    def answered(
        self, prompt: Prompt, client: str, now: float, waited: float = 0.0
    ) -> None:
        """Note that a prompt was answered; its conversation pauses from now on.

        `waited`: seconds that it has waited for its answers so far.
        """
        if prompt.blocks:
            self._since[prompt.blocks[-1]] = now, client, waited
            self._spans[0].append((prompt.blocks[-1], now))
        self._pass(now)

    def arrived(self, prompt: Prompt, now: float) -> float | None:
        """Note a new prompt; return what its conversation has waited, if it goes on."""
        self._pass(now)
        for count in prompt.messages[-2:-6:-1]:
            found = self._since.pop(prompt.blocks[count - 1], None)
            if found is not None:
                since, client, waited = found
                self._count(client, span_of(now - since), ended=True)
                return waited
        return None

    def _pass(self, now: float) -> None:
        """Move on the pauses that have lasted longer than their span."""
        for span, pauses in enumerate(self._spans):
            while pauses and pauses[0][1] <= now - 2.0**span:
                self._leave(span, pauses, over=span + 1 == SPANS)
        while len(self._since) > self.REMEMBERED:
            span = max(number for number, each in enumerate(self._spans) if each)
            self._leave(span, self._spans[span], over=True)

    def _leave(
        self, span: int, pauses: deque[tuple[bytes, float]], *, over: bool
    ) -> None:
        """Take the oldest pause out of its span; `over`: it is not expected to end."""
        block, since = pauses.popleft()
        found = self._since.get(block)
        if found is None or found[0] != since:
            return  # it went on
        self._count(found[1], span, ended=False)
        if over:
            del self._since[block]
        else:
            self._spans[span + 1].append((block, since))

    def _count(self, client: str, span: int, *, ended: bool) -> None:
        own = self._clients.pop(client, None) or Pauses(self.all)
        self._clients[client] = own
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        if span < SPANS:
            own.count(span, ended=ended)
            self.all.count(span, ended=ended)


class Chances:
    """The chances that contents are missed, as they were learned at one moment.

    Until `until` they stay the same, so that what follows from them can be kept.
    """

    def __init__(self, returns: Returns, kept: float, until: float) -> None:
        self.until = until
        self._returns = returns
        self._kept = kept
        self._all = self._times_kept(returns.all)
        self.by_client: dict[str, Sequence[float]] = {}
        """By the span of the pause, for the clients asked for so far."""

    def of(self, client: str) -> Sequence[float]:
        """Probability that a client's content is needed again and found, if kept."""
        found = self.by_client.get(client)
        if found is None:
            pauses = self._returns.of(client)
            own = pauses is not self._returns.all
            found = self._times_kept(pauses) if own else self._all
            self.by_client[client] = found
        return found

    def _times_kept(self, pauses: Pauses) -> Sequence[float]:
        return [self._kept * chance for chance in pauses.chances]

    def to_be_missed(self, client: str, paused: float) -> float:
        """Return that probability after a pause of so many seconds."""
        return self.of(client)[bisect_right(ENDS, paused)]
