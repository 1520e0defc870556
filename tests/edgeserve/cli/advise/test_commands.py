import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from edgeserve.cli.advise.advice import explain
from edgeserve.cli.advise.commands import NODES, print_lines
from edgeserve.cli.advise.machine import AdvisedMachine
from edgeserve.cli.advise.question import asked
from edgeserve.cli.advise.report import explanation
from edgeserve.cli.client import NoAnswer
from edgeserve.cli.main import edgeserve
from edgeserve.models.synthetic import a_model
from edgeserve.wire import NodeReport
from tests.edgeserve.cli.advise.machines import PC, PI5
from tests.fakes.endpoint import FakeEndpoint, fake_endpoint


def run(*arguments: str) -> str:
    found = CliRunner().invoke(edgeserve, ["advise", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_advice_for_this_machine_names_a_model_and_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_MODELS_DIR", str(tmp_path))

    text = run()

    assert "machine     " in text
    assert "writes      " in text
    assert "  edgeserve " in text


def test_a_command_is_never_broken_into_lines() -> None:
    lines = run("qwen2.5-0.5b-instruct:Q8").splitlines()

    (line,) = [each for each in lines if "edgeserve pull" in each]
    assert line.endswith(" edgeserve up --model qwen2.5-0.5b-instruct:Q8_0")


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with fake_endpoint({NODES: []}) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def test_a_fleet_gets_a_row_and_a_command_for_each_node(fleet: FakeEndpoint) -> None:
    fleet.answers[NODES] = [
        {"state": "up", "report": msgspec.to_builtins(report(name, machine))}
        for name, machine in (("pi", PI5), ("pc", PC))
    ]

    text = run("7b:Q4", "--fleet")

    assert "edgeserve pull Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M --to pc" in text
    assert "pc: 4 streams at once" in text
    assert [line.split()[0] for line in text.splitlines()[1:2]] == ["pi"]


def test_a_fleet_without_nodes_is_a_sentence(fleet: FakeEndpoint) -> None:
    assert fleet.url
    assert "no nodes yet" in run("--fleet")


def test_what_is_no_balancer_is_a_sentence(fleet: FakeEndpoint) -> None:
    fleet.answers[NODES] = [{"state": "up", "report": {"hardware": 3}}]

    found = CliRunner().invoke(edgeserve, ["advise", "--fleet"])

    assert isinstance(found.exception, NoAnswer)


def report(name: str, machine: AdvisedMachine) -> NodeReport:
    return NodeReport(
        id=name, name=name, version="0", state="up", port=1, hardware=machine.hardware
    )


def test_the_readme_shows_what_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (found,) = explain(*asked("14b:Q4", ()), PC).explained

    print_lines(explanation(found, PC))

    page = (Path(__file__).parents[4] / "docs" / "models.md").read_text()
    assert f"```text\n{capsys.readouterr().out}```\n" in page


def test_json_of_a_file(tmp_path: Path) -> None:
    path = a_model(tmp_path / "tiny.Q8_0.gguf")

    found = json.loads(run(str(path), "--json"))

    assert found["models"][0]["model"] == "tiny"
    assert found["vllm"] is None
