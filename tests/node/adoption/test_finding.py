"""A node finds servers by what they answer, and says what it adopts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgeserve import http
from edgeserve.config.servers import ServerSetting
from edgeserve.config.settings import NodeSettings
from node.adoption import finding, places
from node.adoption.finding import Adopted, Finder
from node.adoption.places import ServerPlace
from tests.balancer.endpoint import a_secret
from tests.fakes.servers import LLAMA_SERVER, OLLAMA, OPENAI, VLLM, fake_server, listed


def usual(monkeypatch: pytest.MonkeyPatch, *ports: int) -> tuple[ServerPlace, ...]:
    """Have these be the ports where servers usually listen."""
    monkeypatch.setattr(places, "USUAL_PORTS", ports)
    return places.places(NodeSettings(adopt=True))


def named(*settings: ServerSetting) -> tuple[ServerPlace, ...]:
    return places.places(NodeSettings(adopt_tables=settings))


class Looking:
    """A finder whose clock and surroundings the test decides."""

    def __init__(self) -> None:
        self.adopted: tuple[Adopted, ...] = ()
        self.unadopted: tuple[str, ...] = ()
        self.changes = 0

    def change(self, adopted: tuple[Adopted, ...], unadopted: tuple[str, ...]) -> None:
        self.adopted, self.unadopted = adopted, unadopted
        self.changes += 1

    async def look(
        self,
        at: tuple[ServerPlace, ...],
        *meanwhile: Callable[[], Any],
        ours: Callable[[ServerPlace], str] = lambda _: "",
    ) -> list[str]:
        """Look once, and again after each of `meanwhile`; returns the names."""
        async with http.upstream(connect_seconds=5) as upstream:
            finder = Finder(at, upstream, self.change, ours)
            await finder.look()
            for each in meanwhile:
                await each()
                await finder.look()
        return [each.report.name for each in self.adopted]


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Looking:
    monkeypatch.setattr(finding, "AGAIN_SECONDS", 0.0)
    return Looking()


async def test_a_server_is_adopted_as_what_its_answers_show(
    looking: Looking,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with fake_server(OLLAMA) as one, fake_server(LLAMA_SERVER) as two:
        found = await looking.look(usual(monkeypatch, one.port, two.port, 1))

        said = capsys.readouterr().out
        assert found == ["ollama", "llama-server"]
        assert [each.report.port for each in looking.adopted] == [one.port, two.port]
        assert f"adopts ollama at {one.url}: 2 models" in said
        assert f"adopts llama-server at {two.url}: 1 model\n" in said
        assert looking.unadopted == ()


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"/": b"a web page"}, "was answered 404"),
        ({"/v1/models": b"<html>"}, "no JSON object"),
        ({"/v1/models": b""}, "empty body"),
        ({"/v1/models": {"error": "Unexpected endpoint"}}, "200 with an error"),
        ({"/v1/models": listed()}, "empty list of models"),
        (
            {"/v1/models": (401, {"error": "no"})},
            "key, as `key_file` in an [[adopt]] table",
        ),
        (
            {"/v1/models": listed("m", owner="edgeserve")},
            "is EdgeServe itself",
        ),
    ],
)
async def test_an_open_port_alone_adopts_nothing_and_the_reason_is_said_once(
    looking: Looking,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: dict[str, Any],
    why: str,
) -> None:
    async with fake_server(answers) as server:
        places = usual(monkeypatch, server.port)
        assert await looking.look(places, nothing) == []

        said = capsys.readouterr().out
        assert said.count("not adopted: ") == 1
        assert why in said
        assert looking.changes == 0
        assert not server.asked


async def test_what_is_no_server_is_asked_again_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking = Looking()
    async with fake_server({"/": b"a web page"}) as server:
        places = usual(monkeypatch, server.port)
        await looking.look(places, nothing, nothing)

        assert len(server.looked) == 2  # with /v1 and without


async def test_a_port_that_is_ours_is_not_touched(
    looking: Looking,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with fake_server(OPENAI) as server:
        places = usual(monkeypatch, server.port)
        found = await looking.look(places, ours=lambda _: "this node's own")

        assert found == []
        assert f"{server.url} is this node's own" in capsys.readouterr().out
        assert server.looked == []


async def test_a_server_that_ends_is_dropped_and_another_program_seen_in_its_place(
    looking: Looking,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with fake_server(OLLAMA) as server:
        places = usual(monkeypatch, server.port)

        async def changed() -> None:
            server.answers = VLLM
            await server.start()

        found = await looking.look(places, server.stop, changed)

        assert found == ["vllm"]
        assert looking.changes == 3
        assert f"ollama at {server.url} is gone" in capsys.readouterr().out


async def test_another_program_at_the_same_port_is_seen_though_it_never_closed(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "CHECK_SECONDS", 0.0)
    async with fake_server(OLLAMA) as server:
        places = usual(monkeypatch, server.port)

        async def replaced() -> None:
            server.answers = VLLM

        async def a_web_page() -> None:
            server.answers = {"/": b"a web page"}

        assert await looking.look(places, nothing, replaced) == ["vllm"]
        assert looking.changes == 2
        assert await looking.look(places, a_web_page) == []


async def test_a_server_keeps_its_name_when_another_of_its_kind_comes(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_server(VLLM) as later, fake_server(VLLM) as first:
        await later.stop()
        places = usual(monkeypatch, later.port, first.port)

        found = await looking.look(places, later.start)

        assert found == [f"vllm:{later.port}", "vllm"]


async def test_an_adopted_server_is_not_asked_again_by_its_node(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_server(OPENAI) as server:
        await looking.look(usual(monkeypatch, server.port))
        looked = len(server.looked)
        await looking.look(usual(monkeypatch, server.port), nothing, nothing)

        assert len(server.looked) == 2 * looked


async def test_a_named_server_has_its_key_settings_and_name(
    looking: Looking, tmp_path: Any
) -> None:
    key = a_secret(tmp_path, "key", "s3cret")
    async with fake_server(VLLM, key="s3cret") as server:
        setting = ServerSetting(
            url=f"{server.url}/v1/",
            key_file=str(key),
            name="big",
            width=7,
            models=("Qwen/Small",),
        )
        assert await looking.look(named(setting)) == ["big"]

        (found,) = looking.adopted
        assert (found.key, found.place.base) == ("s3cret", "")
        assert (found.report.width, found.report.models) == (7, ("Qwen/Small",))


async def test_a_named_server_that_is_not_there_is_a_problem_of_the_node(
    looking: Looking,
) -> None:
    async with fake_server(OPENAI) as server:
        url = server.url
    await looking.look(named(ServerSetting(url=url)))

    assert looking.unadopted == (f"{url} is not there: nothing listens",)


def test_named_ports_are_looked_at_once() -> None:
    settings = NodeSettings(adopt=True, adopt_urls=("http://127.0.0.1:11434/x/v1",))

    found = places.places(settings)

    assert [each.origin.port for each in found].count(11434) == 1
    assert found[0].base == "/x"
    assert found[0].named
    assert places.places(NodeSettings()) == ()


async def nothing() -> None:
    """Let the finder look again."""
