"""No request makes a machine of the fleet ask an address that is not allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.request import read_request
from balancer.validation.grammar_text import Caps
from balancer.validation.media_urls import check_media
from edgeserve.errors import BadRequest
from edgeserve.openai import ROUTES

METADATA = "http://169.254.169.254/latest/meta-data"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def chat(part: object) -> bytes:
    message = {"role": "user", "content": [{"type": "text", "text": "look"}, part]}
    return json.dumps({"model": "m", "messages": [message]}).encode()


PARTS: dict[str, Any] = {
    "an image": image(METADATA),
    "an image as a text": {"type": "image_url", "image_url": METADATA},
    "upper case": image(METADATA.upper()),
    "a blank before it": image(" " + METADATA),
    "a file": image("file:///etc/passwd"),
    "a file as data of a sound": {
        "type": "input_audio",
        "input_audio": {"data": "file:///etc/passwd", "format": "wav"},
    },
    "a sound": {"type": "input_audio", "input_audio": {"data": METADATA}},
    "a film": {"type": "video_url", "video_url": {"url": METADATA}},
    "of responses": {"type": "input_image", "image_url": METADATA},
    "a file of responses": {"type": "input_file", "file_url": METADATA},
    "of messages": {"type": "image", "source": {"type": "url", "url": METADATA}},
    "what a tool returned": {
        "type": "tool_result",
        "content": [{"type": "image", "source": {"type": "url", "url": METADATA}}],
    },
    "a host that is not HTTP at all": image("httpx://a/b"),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_what_an_engine_would_fetch_is_refused(part: object) -> None:
    with pytest.raises(BadRequest, match="send the content as a data: URL"):
        check_media(chat(part), frozenset())


def test_letters_in_escapes_hide_nothing() -> None:
    hidden = chat(image(METADATA)).replace(b"image", b"\\u0069mag\\u0065")

    with pytest.raises(BadRequest):
        check_media(hidden, frozenset())


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/apply-template"]
)
def test_every_route_refuses_it(path: str) -> None:
    field = "input" if path == "/v1/responses" else "messages"
    body = chat(image(METADATA)).replace(b"messages", field.encode())

    with pytest.raises(BadRequest, match="media_hosts"):
        read_request(ROUTES[path], body)


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,aGk=", "aGk=", "https://images.example/a.png?b=c",
     "http://IMAGES.example:8080"],
)  # fmt: skip
def test_data_and_allowed_hosts_pass(url: str) -> None:
    read_request(
        ROUTES["/v1/chat/completions"],
        chat(image(url)),
        caps=Caps(media_hosts=frozenset(("images.example",))),
    )


@pytest.mark.parametrize(
    "url",
    ["http://images.example@127.0.0.1/", "http://127.0.0.1/@images.example",
     "http://images.example?@127.0.0.1/", "http://images.example#@127.0.0.1/",
     "http://images.example\\@127.0.0.1/", "http://images.example.evil/",
     "http://127.0.0.1\\.images.example/", "http:images.example", "http:///images",
     "http://images.example:80@127.0.0.1/", "http://images.example /",
     "ftp+http://images.example/", "file://images.example/a"],
)  # fmt: skip
def test_no_spelling_of_an_allowed_host_leads_elsewhere(url: str) -> None:
    if not url.startswith("ftp"):  # which llama.cpp takes for base64
        with pytest.raises(BadRequest):
            check_media(chat(image(url)), frozenset(("images.example",)))


def test_links_in_texts_citations_and_arguments_pass() -> None:
    texts = [
        {"type": "text", "text": "http://a/image.png"},
        {"type": "output_text", "text": "an image", "annotations": [
            {"type": "url_citation", "url": "https://a/image"}]},
        {"type": "document", "title": "http://a/image", "source": {
            "type": "text", "data": "plain"}},
    ]  # fmt: skip
    for part in texts:
        check_media(chat(part), frozenset())
