from __future__ import annotations

import msgspec
import pytest

from edgeserve.errors import BadRequest, NoNode, UnknownModel
from node.api.inference import by_name
from tests.node.building import an_engine

CHAT = an_engine("tiny:Q4_0")
LARGE = an_engine("tiny:Q8_0")
EMBED = an_engine("tiny:Q4_0", id="tiny:Q4_0#embeddings", abilities=("embeddings",))
OTHER = an_engine("other:Q4_0")
ALL = (CHAT, LARGE, EMBED, OTHER)


@pytest.mark.parametrize("name", ["tiny:Q8_0", "Tiny:q8_0", "tiny:Q8_0.gguf"])
def test_a_variant_is_found_however_it_is_spelled(name: str) -> None:
    assert by_name(ALL, name, "chat") == LARGE


def test_an_engine_is_found_by_its_id() -> None:
    assert by_name(ALL, "tiny:Q4_0#embeddings", "embeddings") == EMBED


@pytest.mark.parametrize(
    "name",
    ["Tiny-Chat.v2.q8_0.GGUF", "tiny-chat.V2.Q8_0", "Tiny-Chat.v2.Q8_0.gguf"],
)
def test_an_engine_is_found_by_the_name_of_its_file(name: str) -> None:
    file = "Tiny-Chat.v2.Q8_0.gguf"
    filed = msgspec.structs.replace(LARGE, file=file)

    assert by_name((CHAT, filed, OTHER), name, "chat") == filed


def test_a_model_means_its_idlest_variant() -> None:
    busy = an_engine("tiny:Q4_0", busy=1)

    assert by_name((busy, LARGE), "tiny", "chat") == LARGE


def test_a_variant_that_is_ready_goes_before_one_that_loads() -> None:
    loading = an_engine("tiny:Q4_0", state="loading")

    assert by_name((loading, an_engine("tiny:Q8_0", busy=1)), "tiny", "chat").busy == 1


def test_the_ability_decides_between_two_engines_of_one_file() -> None:
    assert by_name(ALL, "tiny:Q4_0", "embeddings") == EMBED


def test_no_name_means_the_only_model() -> None:
    assert by_name((CHAT, LARGE, EMBED), "", "embeddings") == EMBED


def test_no_name_among_several_models_is_refused_with_their_names() -> None:
    with pytest.raises(BadRequest, match="other, tiny"):
        by_name(ALL, "", "chat")


def test_no_name_where_nothing_is_able_says_so() -> None:
    with pytest.raises(BadRequest, match="rerank"):
        by_name(ALL, "", "rerank")


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownModel, match=r"other, other:Q4_0, tiny, tiny:Q4_0"):
        by_name(ALL, "huge", "chat")


def test_a_model_asked_for_what_it_cannot_do_says_what_it_can() -> None:
    with pytest.raises(BadRequest, match=r"chat, completion, not for rerank"):
        by_name(ALL, "other", "rerank")


def test_a_node_without_engines_asks_to_come_back() -> None:
    with pytest.raises(NoNode):
        by_name((), "tiny", "chat")


def test_what_needs_nothing_is_done_by_any_engine() -> None:
    assert by_name((EMBED,), "", None) == EMBED
    assert by_name(ALL, "other", None) == OTHER
    with pytest.raises(BadRequest, match="name the `model`"):
        by_name(ALL, "", None)
