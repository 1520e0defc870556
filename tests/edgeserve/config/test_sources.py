import os

import pytest

from edgeserve.config.options import warn_of_unknown_variables
from edgeserve.config.settings import NodeSettings
from edgeserve.config.sources import resolve, unknown_variables
from edgeserve.runtime import tether

OF_SERVICES = {
    "EDGESERVE_SERVICE_HOST": "10.96.0.7",
    "EDGESERVE_SERVICE_PORT": "8080",
    "EDGESERVE_PORT": "tcp://10.96.0.7:8080",
    "EDGESERVE_NODE_SERVICE_HOST": "10.96.0.8",
    "EDGESERVE_NODE_SERVICE_PORT": "8090",
    "EDGESERVE_NODE_SERVICE_PORT_HTTP": "8090",
    "EDGESERVE_NODE_PORT": "tcp://10.96.0.8:8090",
    "EDGESERVE_NODE_PORT_8090_TCP": "tcp://10.96.0.8:8090",
    "EDGESERVE_NODE_PORT_8090_TCP_PROTO": "tcp",
    "EDGESERVE_NODE_PORT_8090_TCP_PORT": "8090",
    "EDGESERVE_NODE_PORT_8090_TCP_ADDR": "10.96.0.8",
    "EDGESERVE_NODE_PORT_5353_UDP": "udp://10.96.0.8:5353",
    "EDGESERVE_NODE_NAME": "/app/edgeserve_node",
    "EDGESERVE_NODE_ENV_LANG": "C.UTF-8",
    "EDGESERVE_BALANCER_PORT": "tcp://10.96.0.9:8080",
}
"""What Kubernetes gives for three services, and a docker link for one container."""


def warned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **env: str
) -> list[str]:
    with monkeypatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        warn_of_unknown_variables()
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("EDGESERVE_NODE_SLTS", "EDGESERVE_NODE_SLOTS"),
        ("EDGESERVE_SLOTS", "EDGESERVE_NODE_SLOTS"),
        ("EDGESERVE_NODE_MODEL", "EDGESERVE_NODE_MODELS"),
        ("EDGESERVE_NODE_QUEUE_SECONDS", "EDGESERVE_BALANCER_QUEUE_SECONDS"),
        ("EDGESERVE_BALANCER_LOGLEVEL", "EDGESERVE_BALANCER_LOG_LEVEL"),
        ("EDGESERVE_LOGLEVEL", "EDGESERVE_LOG_LEVEL"),
        ("EDGESERVE_MODEL_DIR", "EDGESERVE_MODELS_DIR"),
        ("EDGESERVE_PORT", "EDGESERVE_BALANCER_PORT or EDGESERVE_NODE_PORT"),
    ],
)
def test_a_variable_that_means_nothing_is_warned_of_with_the_one_that_was_meant(
    variable: str,
    meant: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert warned(monkeypatch, capsys, **{variable: "9000"}) == [
        f"edgeserve: {variable} is not a known variable; did you mean {meant}?"
    ]


def test_one_that_is_like_none_gets_the_place_where_they_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = warned(monkeypatch, capsys, EDGESERVE_NODE_XYZZY="1")

    assert line.endswith("`edgeserve config example` lists the settings")


def test_variables_that_are_known_are_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {
        "EDGESERVE_NODE_SLOTS": "4",
        "EDGESERVE_BALANCER_QUEUE": "2",
        "EDGESERVE_LOG_LEVEL": "info",
        "EDGESERVE_NODE_STATE_DIR": "/tmp",  # noqa: S108 - only a value
        "EDGESERVE_MODELS_DIR": "/tmp",  # noqa: S108 - only a value
        "EDGESERVE_URL": "http://nuc:8080",
        "EDGESERVE_API_KEY_FILE": "key",
        tether.PARENT: "4711",
    }

    assert warned(monkeypatch, capsys, **known) == []


def test_a_child_process_need_not_warn_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGESERVE_NODE_SLTS", "4")

    warn_of_unknown_variables()
    assert len(capsys.readouterr().err.splitlines()) == 1

    assert "EDGESERVE_NODE_SLTS" not in os.environ


@pytest.mark.parametrize("variable", OF_SERVICES)
def test_what_kubernetes_and_docker_put_there_is_not_warned_of(variable: str) -> None:
    assert list(unknown_variables({variable: OF_SERVICES[variable]}, ())) == []


def test_the_address_of_a_service_is_not_taken_for_a_setting() -> None:
    settings = resolve(NodeSettings, environ=OF_SERVICES).settings

    assert settings.port == NodeSettings().port
    assert settings.name == NodeSettings().name
