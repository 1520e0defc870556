import pytest

from balancer.simulate.compare import compare, suited
from balancer.simulate.fleets import Machine
from edgeserve.errors import CommandError
from tests.balancer.simulate.calls import a_call


def box(name: str, model: str = "") -> Machine:
    return Machine(name=name, prefill=100, decode=10, model=model)


CALLS = [a_call(0, model="llama"), a_call(1, model="qwen")]


def test_machines_that_name_the_models_asked_for_serve_those() -> None:
    fleet = (box("a", "llama"), box("b", "qwen"))

    (row,) = compare(fleet, CALLS, ["edgeserve"])

    assert suited(fleet, CALLS).note == ""
    assert row.shares == (0.5, 0.5)


def test_a_machine_without_a_model_serves_every_one() -> None:
    fleet = (box("a"), box("b", "qwen"))

    found = suited(fleet, CALLS)

    assert found.fleet == fleet
    assert found.note == "machines without a `model` serve 'llama', 'qwen'"
    assert [machine.serves("llama") for machine in found.fleet] == [True, False]


def test_a_fleet_of_one_model_stands_for_every_other() -> None:
    fleet = (box("a", "phi"), box("b", "phi"))

    found = suited(fleet, CALLS)

    assert all(machine.serves("qwen") for machine in found.fleet)
    assert found.note == "machines of 'phi' serve 'llama', 'qwen'"
    for policy in ("edgeserve", "oracle", "round-robin"):
        (row,) = compare(fleet, CALLS, [policy])
        assert row.calls == 2


def test_a_model_that_no_machine_has_is_named_with_those_of_both_sides() -> None:
    fleet = (box("a", "phi"), box("b", "qwen"))

    with pytest.raises(CommandError) as error:
        suited(fleet, CALLS)

    assert str(error.value) == (
        "no machine serves 'llama': the trace asks for 'llama', 'qwen', the fleet"
        " serves 'phi', 'qwen'; a machine without a `model` serves every one"
    )
