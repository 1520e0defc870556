"""Header injection and path traversal get no field and no file."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

from tests.fleet.fleet import TOKEN
from tests.security.asking import CHAT, a_user, chat
from tests.security.conftest import Town
from tests.security.stranger import ANY_CERTIFICATE, said_to

INJECTED = "x-injected"
BREAKS = ("\r\n", "\n", "\r", "\0", "\u2028", "\u010a\u010d")
"""The last ones become line breaks where a character is cut to a byte."""

FILE = "root:"
"""In /etc/passwd."""

UP = "../" * 12 + "etc/passwd"
PATHS = (
    f"/{UP}",
    "/" + "%2e%2e/" * 12 + "etc/passwd",
    "/" + "%2e%2e%2f" * 12 + "etc%2fpasswd",
    "/" + "..%5c" * 12 + "etc%5cpasswd",
    "/" + "%252e%252e/" * 12 + "etc/passwd",
    f"//{UP}",
    "file:///etc/passwd",
    "http:///etc/passwd",
    f"/v1/models/{UP}",
    f"/v1/models/{quote(UP, safe='')}",
    f"/edgeserve/v1/requests/{quote(UP, safe='')}",
    f"/slots/0?action=restore&filename={quote(UP, safe='')}",
    f"/slots/0?action=save&filename={quote(UP, safe='')}",
    f"/lora-adapters?path=/{UP}",
)
NAMES = (UP, f"/{UP}", "small/" + UP, "/etc/passwd", "file:///etc/passwd", "..")
SECRETS = (TOKEN, "BEGIN PRIVATE KEY", FILE)


def asked(path: str, fields: str = "", body: str = "") -> bytes:
    method = "POST" if body else "GET"
    length = f"content-length: {len(body.encode())}\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
    return f"{head}{fields}{length}\r\n{body}".encode("utf-8", "surrogateescape")


def of_chat(fields: str = "", model: str = "small") -> bytes:
    return asked(CHAT, fields, json.dumps({**chat(2), "model": model}))


async def test_0_of_all_line_breaks_in_values_become_a_field(town: Town) -> None:
    line = f"{INJECTED}: 1"
    fields = ("x-request-id", "x-session-id", "user-agent", "x-edgeserve-request-id")
    sent = [of_chat(model=f"small{each}{line}{each}{each}") for each in BREAKS] + [
        of_chat(f"{name}: a{each}{line}\r\n")
        for name in fields
        for each in BREAKS
        if each != "\r\n"  # which just is another field
    ]
    sent += [asked(f"/v1/models/a{quote(each)}{quote(line)}") for each in BREAKS] + [
        asked(f"{CHAT}?a={quote(each)}{quote(line)}") for each in BREAKS
    ]
    async with a_user(town) as user:
        at = town.balancer.host.address, 8080
        answers = await asyncio.gather(
            *(said_to(town.fleet.client, *at, [each]) for each in sent)
        )
        right = await user.prompts(4)

    heads = [each.partition(b"\r\n\r\n")[0].lower() for each in answers]
    assert all(each.startswith(b"http/1.1 ") for each in heads)
    assert sum(f"\n{INJECTED}".encode() in each for each in heads) == 0
    assert sum(each.startswith(b"http/1.1 5") for each in heads) == 0
    assert sum(each.count(b"HTTP/1.1 ") for each in answers) == len(sent)
    assert right == 4


async def test_0_files_come_out_by_paths_and_names(town: Town) -> None:
    bodies = [of_chat(model=each) for each in NAMES]
    sent = [asked(each) for each in PATHS] + bodies
    sent += [asked(each, body="{}") for each in PATHS]
    at = town.balancer.host.address, 8080
    async with a_user(town) as user:
        answers = await asyncio.gather(
            *(said_to(town.fleet.client, *at, [each]) for each in sent)
        )
        of_node = await asyncio.gather(
            *(
                said_to(
                    town.stranger,
                    town.node.host.address,
                    8090,
                    [asked(each)],
                    ANY_CERTIFICATE,
                )
                for each in PATHS
            )
        )
        right = await user.prompts(4)

    statuses = [int(each.split()[1]) for each in answers]
    assert all(400 <= each < 500 for each in statuses), statuses
    assert [each.split()[1] for each in of_node] == [b"401"] * len(PATHS)
    everything = b"".join((*answers, *of_node))
    assert [everything.count(each.encode()) for each in SECRETS] == [0, 0, 0]
    assert right == 4
