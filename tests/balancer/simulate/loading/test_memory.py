from balancer.simulate.loading.fleets import HostedEngine, HostFleet
from balancer.simulate.loading.memory import HostMemory
from balancer.simulate.world import Empty, Wake


def a_fleet(memory: float = 10.0) -> HostFleet:
    """Three models of 4 GiB on one machine, of which each loads in five seconds."""
    engines = tuple(
        HostedEngine(
            name=f"box/{model}",
            model=model,
            host="box",
            memory=4.0,
            load_seconds=5.0,
            prefill=100.0,
            decode=10.0,
        )
        for model in "abc"
    )
    return HostFleet(engines, {"box": memory})


def loaded(*engines: int) -> HostMemory:
    memory = HostMemory(a_fleet())
    for engine in engines:
        memory.load(engine, (), 0.0)
    memory.advance(5.0)
    return memory


def test_a_load_takes_its_time_and_holds_its_memory_from_the_start() -> None:
    memory = HostMemory(a_fleet())

    assert memory.load(0, (), 1.0) == [Wake(6.0)]
    assert (memory.engines[0].state, memory.free("box")) == ("loading", 6.0)
    memory.advance(6.0)
    assert memory.engines[0].state == "ready"


def test_what_fits_evicts_nothing_and_else_the_longest_unused_goes() -> None:
    memory = loaded(0, 1)
    memory.start(0, 6.0)
    memory.end(0, 7.0)

    assert memory.evicts(2) == [1]
    assert loaded(0).evicts(1) == []


def test_a_busy_engine_ends_its_requests_before_another_takes_its_memory() -> None:
    memory = loaded(0, 1)
    memory.start(1, 6.0)

    assert memory.load(2, [1], 7.0) == []
    assert [each.state for each in memory.engines] == ["ready", "leaving", "waiting"]
    assert memory.end(1, 9.0) == [Empty(1)]
    assert memory.advance(9.0) == [Wake(14.0)]
    assert (memory.loads, memory.evictions) == (3, 1)


def test_a_model_larger_than_what_can_be_freed_has_no_place() -> None:
    memory = HostMemory(a_fleet(memory=4.0))
    memory.load(0, (), 0.0)

    assert memory.evicts(1) is None  # what loads is not evicted
