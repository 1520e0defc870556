"""Servers are set by URL or by tables; what is wrong is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeserve.config.servers import ServerSetting, server_from
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.errors import SettingsError

URL = "http://gpu:8000"


def settings_of(folder: Path, text: str, **flags: object) -> BalancerSettings:
    file = folder / "edgeserve.toml"
    file.write_text(text)
    return resolve(BalancerSettings, file=file, environ={}, flags=flags).settings


def test_flags_and_tables_name_servers(tmp_path: Path) -> None:
    text = f'[[server]]\nurl = "{URL}"\nkind = "vllm"\nmodels = ["a"]\nwidth = 3\n'

    found = settings_of(tmp_path, text, servers=("http://pi:11434/v1",)).all_servers()

    assert found == (
        ServerSetting(url="http://pi:11434/v1"),
        ServerSetting(url=URL, kind="vllm", models=("a",), width=3),
    )
    assert server_from(found[1].shown()) == found[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('knid = "vllm"', "did you mean"),
        ('kind = "vlm"', "it can be auto, openai, vllm"),
        ("width = -1", "`width` must be between 0 and 4096"),
        ('width = "x"', "Expected `int`"),
        ('abilities = ["chatt"]', "`abilities` has 'chatt'"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(
    tmp_path: Path, line: str, said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_of(tmp_path, f'[[server]]\nurl = "{URL}"\n{line}\n')

    assert said in str(refused.value)
    assert "[[server]]" in str(refused.value)


def node_settings(tmp_path: Path, text: str, **flags: object) -> NodeSettings:
    file = tmp_path / "edgeserve.toml"
    file.write_text(text)
    return resolve(NodeSettings, file=file, environ={}, flags=flags).settings


def test_flags_and_tables_name_servers_of_a_nodes_machine(tmp_path: Path) -> None:
    text = (
        '[[adopt]]\nurl = "http://[::1]:5001"\nkey_file = "~/k"\n[node]\nadopt = true\n'
    )

    found = node_settings(tmp_path, text, adopt_urls=("http://localhost:5000/v1",))

    assert found.adopt
    assert found.named_servers() == (
        ServerSetting(url="http://localhost:5000/v1"),
        ServerSetting(url="http://[::1]:5001", key_file="~/k"),
    )
    assert BalancerSettings() == settings_of(
        tmp_path, '[[adopt]]\nurl = "http://[::1]"\n'
    )


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (("http://gpu:8000",), "edgeserve balancer start --server"),
        (("http://10.0.0.5:8000",), "on this machine"),
        (("127.0.0.1:8000",), "on this machine"),
        (("http://127.0.0.1:1/a", "http://localhost:1/b"), "named twice"),
    ],
)
def test_a_node_adopts_on_its_own_machine_and_each_port_once(
    tmp_path: Path, urls: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        node_settings(tmp_path, "", adopt_urls=urls)


@pytest.mark.parametrize("url", ["gpu:8000", "http://", "http://x:99999", "ftp://x"])
def test_what_is_no_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="must be"):
        settings_of(tmp_path, "", servers=(url,))


def test_a_server_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="named twice"):
        settings_of(tmp_path, f'[[server]]\nurl = "{URL}/"\n', servers=(URL,))
