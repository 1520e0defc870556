import pytest

from edgeserve.models.memory import GIB
from quantize.plan.machines import MACHINES, UnknownMachine, find


def test_every_machine_gives_a_model_less_than_it_has() -> None:
    for name, machine in MACHINES.items():
        installed = int(name.rpartition("-")[2].removesuffix("gb")) * GIB
        assert 0 < machine.usable < installed


def test_a_size_given_as_memory_counts_as_free() -> None:
    (place,) = find((), ("4GiB",))

    assert place.usable == 4 * GIB


def test_without_options_the_usual_machines_are_used() -> None:
    assert len(find((), ())) > 2


@pytest.mark.parametrize(("names", "sizes"), [(("cray-1",), ()), ((), ("lots",))])
def test_an_unknown_machine_or_size_is_refused(
    names: tuple[str, ...], sizes: tuple[str, ...]
) -> None:
    with pytest.raises(UnknownMachine, match=r"pi5-8gb|not a size"):
        find(names, sizes)
