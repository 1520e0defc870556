"""Server recognition: ask a server a few GETs, and decide what it is.

An answer that is of no use gives a sentence: what was asked, what came, what to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edgeserve.config.servers import ServerSetting
from edgeserve.errors import NodeLost
from edgeserve.servers.errors import error_of
from edgeserve.servers.profiles import BY_KIND, PROFILES
from edgeserve.servers.profiles.base import (
    MODELS,
    Profile,
    Replies,
    Reply,
    cards,
    owners,
)

WHERE_KEY = "with --key-file or as `key_file` in a [[server]] table"
"""Where a balancer is told the file with a server's key."""

Get = Callable[[str], Awaitable[Reply]]
"""Asks for a path of the server. Raises NodeLost."""


@dataclass(frozen=True)
class Recognised:
    """What a server is; `api` is where its paths of OpenAI's API begin.

    `looks`: what is asked again and again, without what it was seen not to have.
    `balances`: it is another balancer.
    """

    profile: Profile
    api: str
    looks: tuple[str, ...]
    balances: bool = False


async def recognise(
    get: Get, setting: ServerSetting, base: str, *, balancers: bool = False
) -> Recognised:
    """Find out what a server is. Raises NodeLost with a sentence.

    `base` is the path of its URL, without `/v1`. `balancers`: another balancer may be
    one, where its kind is named; by error it would soon ask itself.
    """
    api, models = await _list(get, setting, base)
    replies: dict[str, Reply] = {MODELS: models}
    named, balances = setting.kind != "auto", "edgeserve" in owners(replies)
    if balances and not (balancers and named):
        raise NodeLost(f"{setting.url} is EdgeServe itself; name its nodes with --node")
    if named:
        profile = BY_KIND[setting.kind]
        return Recognised(profile, api, profile.looks, balances)
    for profile in PROFILES:
        for path in profile.asks:
            if path not in replies:
                replies[path] = await get(base + path)
        if profile.recognises(replies):
            looks = (each for each in profile.looks if _has(replies, each))
            return Recognised(profile, api, tuple(looks))
    raise NodeLost(sentence(setting, base + MODELS, models))


def _has(replies: Replies, path: str) -> bool:
    """Whether a path may be there: one that is not fills the log of its server."""
    reply = replies.get(path)
    return reply is None or (reply.status != 404 and "error" not in reply.json)


async def _list(get: Get, setting: ServerSetting, base: str) -> tuple[str, Reply]:
    """Return where its API begins, and its list of models."""
    first = await get(base + MODELS)
    if cards({MODELS: first}):
        return f"{base}/v1", first
    if first.status in {401, 403}:
        raise NodeLost(sentence(setting, base + MODELS, first))
    bare = await get(f"{base}/models")
    if cards({MODELS: bare}):
        return base, bare
    raise NodeLost(sentence(setting, base + MODELS, first))


async def look(get: Get, found: Recognised, base: str) -> Replies:
    """Ask all that the profile reads again and again."""
    replies = {MODELS: await get(f"{found.api}/models")}
    for path in found.looks:
        replies[path] = await get(base + path)
    for path in found.profile.more_looks(replies):
        replies[path] = await get(base + path)
    return replies


def sentence(setting: ServerSetting, path: str, reply: Reply) -> str:
    """Say what is wrong with the answer to a GET for the list of models. Pure."""
    return f"GET {path} of {setting.url} {_what_came(setting, reply)}"


def _what_came(setting: ServerSetting, reply: Reply) -> str:
    status, where = reply.status, reply.headers.get("location", "elsewhere")
    said = error_of(reply.body, status)["message"][:200]
    match status:
        case 401 | 403 if setting.key_file:
            return f"was answered {status}: it refuses the key in {setting.key_file}"
        case 401 | 403 if reply.keyed:
            return (
                f"was answered {status}: it refuses the key that it gets; name a file"
                f" with another, {WHERE_KEY}"
            )
        case 401 | 403:
            return (
                f"was answered {status} ({said}): name the file with its key,"
                f" {WHERE_KEY}"
            )
        case 404:
            return "was answered 404: name the URL below which its /v1/models is"
        case 200:
            return _what_came_with_200(reply)
        case _ if 300 <= status < 400:
            where = where.removesuffix("/models")
            return f"was answered {status}: it points to {where}; name that URL"
        case _:
            return f"was answered {status} ({said}): see its log"


def _what_came_with_200(reply: Reply) -> str:
    if not reply.body.strip():
        return "was answered 200 with an empty body: it may lack a model; load one"
    if "error" in reply.json:
        said = error_of(reply.body, 200)["message"][:200]
        return f"was answered 200 with an error ({said}): is its URL right?"
    if not reply.json:
        kind = reply.headers.get("content-type", "no content type")
        return f"was answered 200 with {kind}, no JSON object: is its URL right?"
    if reply.json.get("data") == []:
        return "was answered with an empty list of models: load one there"
    return "was answered without a list of models in `data`: is its URL right?"
