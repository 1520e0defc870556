import pytest

from edgeserve.config.settings import NodeSettings
from node.models.choice import Choice, Option, choose

BITS = {"F16": 16.0, "Q8_0": 8.5, "Q4_K_M": 4.9, "Q4_0": 4.3, "Q2_K": 3.2}


def option(label: str, speed: float = 10.0, **more: object) -> Option:
    bits = BITS.get(label, 5.0)
    fields = {"whole": True, "bits": bits, **more}
    return Option(variant=f"m:{label}", label=label, speed=speed, **fields)  # type: ignore[arg-type]  # a test's shorthand


EVERY = [
    option("F16", 4.0, whole=False),
    option("Q8_0", 8.0),
    option("Q4_K_M", 14.0),
    option("Q4_0", 17.0),
    option("Q2_K", 16.0),
]


@pytest.mark.parametrize(
    ("speed", "quality", "label"),
    [
        (0, "", "Q8_0"),
        (5, "", "Q8_0"),
        (10, "", "Q4_K_M"),
        (15, "", "Q4_0"),
        (99, "", "Q4_0"),
        (0, "Q4_K_M", "Q4_K_M"),
        (0, "Q6_K", "Q8_0"),
        (0, "F16", "F16"),
        (0, "0.05", "Q4_K_M"),
        (0, "0.5", "Q4_0"),
        (10, "Q6_K", "Q8_0"),
        (7, "Q4_K_M", "Q8_0"),
    ],
)
def test_the_variant_is_what_speed_and_quality_ask_for(
    speed: float, quality: str, label: str
) -> None:
    settings = NodeSettings(min_speed=speed, min_quality=quality)
    found = choose(EVERY, settings)

    assert isinstance(found, Choice)
    assert found.variant == f"m:{label}"
    fastest = max(each.speed for each in EVERY if each.variant == found.variant)
    assert found.short is (fastest < speed)


def test_a_floor_above_everything_is_refused_with_what_there_is() -> None:
    found = choose([option("Q4_0"), option("Q2_K")], NodeSettings(min_quality="Q8_0"))

    assert found == "none is as good as Q8_0; there is m:Q4_0, m:Q2_K"


def test_measured_losses_win_over_what_types_usually_lose() -> None:
    tables = [
        option("Q8_0", divergence=0.3),
        option("Q4_K_M", divergence=0.04),
    ]

    best = choose(tables, NodeSettings())
    bounded = choose(tables, NodeSettings(min_quality="0.05"))

    assert isinstance(best, Choice)
    assert isinstance(bounded, Choice)
    assert best.variant == bounded.variant == "m:Q4_K_M"


def test_one_measurement_alone_does_not_outweigh_the_tables() -> None:
    # Of a model that suffers more than the tables' own.
    some = [option("Q8_0", divergence=0.02), option("Q6_K")]
    found = choose(some, NodeSettings())

    assert isinstance(found, Choice)
    assert found.variant == "m:Q8_0"


def test_unknown_labels_come_last_and_by_bits() -> None:
    unknown = [option("NEW_A", bits=4.0), option("NEW_B", bits=6.0)]
    alone = choose(unknown, NodeSettings())
    beside = choose([*unknown, option("Q2_K")], NodeSettings())

    assert isinstance(alone, Choice)
    assert isinstance(beside, Choice)
    assert (alone.variant, beside.variant) == ("m:NEW_B", "m:Q2_K")


def test_where_none_fits_whole_the_fastest_is_served() -> None:
    cramped = [option("Q8_0", 3.0, whole=False), option("Q4_0", 5.0, whole=False)]
    found = choose(cramped, NodeSettings())

    assert isinstance(found, Choice)
    assert found.variant == "m:Q4_0"
