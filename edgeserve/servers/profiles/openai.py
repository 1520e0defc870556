"""OpenAI profile: any server with OpenAI's API, with the least assumptions. Pure.

transformers serve and mlx_lm.server are such: nothing else can be read from them.
"""

from __future__ import annotations

from edgeserve.servers.profiles.base import Profile, Replies, cards


class OpenAI(Profile):
    """A list of models with ids is all that it needs."""

    kind = "openai"

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        return bool(cards(replies))
