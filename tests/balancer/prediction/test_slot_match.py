"""The predicted choice of slot against llama.cpp's own rules."""

from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.dialects.prompt import Prompt, chain
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.prefix_cache import HostCache
from balancer.prediction.running import RunningRequest
from balancer.prediction.slot_match import pick
from balancer.routing.dispatcher import Dispatcher
from balancer.simulate.cache import Cache, Place
from balancer.simulate.cache import SlotContent as Truth
from tests.balancer.engine_models import LAPTOP, a_request

words = st.sampled_from([b"a" * 300, b"b" * 700, b"c" * 90, b"d" * 1500])
prompts = st.lists(words, min_size=1, max_size=6).map(chain)


def a_dispatcher(slots: int, host_tokens: int) -> tuple[Dispatcher, EngineModel]:
    engine_models: list[EngineModel] = []
    dispatcher = Dispatcher(lambda _: engine_models)
    host = HostCache(dispatcher.cache_index, host_tokens) if host_tokens else None
    engine_models.append(
        EngineModel(
            name="x",
            model="m",
            slots=slots,
            learner=SpeedLearner(LAPTOP),
            cache_index=dispatcher.cache_index,
            pins=False,
            host=host,
        )
    )
    return dispatcher, engine_models[0]


def tokens(prompt: Prompt) -> int:
    """A byte is a token here, so that nothing needs rounding."""
    return prompt.size


@settings(max_examples=150)
@given(
    st.lists(st.tuples(prompts, st.booleans()), min_size=1, max_size=20),
    st.integers(1, 4),
    st.sampled_from([0, 900, 100_000]),
)
def test_belief_and_engine_agree_on_every_prompt(
    features_of: list[tuple[Prompt, bool]], slots: int, host_tokens: int
) -> None:
    dispatcher, engine_model = a_dispatcher(slots, host_tokens)
    engine = Cache([Place() for _ in range(slots)], host_tokens)
    running: list[tuple[RunningRequest, Truth]] = []
    for now, (prompt, ends) in enumerate(features_of, 1):
        request = a_request(prompt, now, "m", answer=1.0)
        request.tokens = float(tokens(prompt))
        features = dispatcher.features(request, now)
        believed = pick(features, engine_model)
        truth = Truth(prompt, list(prompt.ends))
        slot, spared = engine.take(truth, now)
        running_request = RunningRequest(
            prompt=prompt,
            slot=slot,
            tokens=tokens(prompt),
            cached=spared,
            answer=0.0,
            started=now,
            reading=1.0,
        )
        engine_model.start(running_request, now)
        running.append((running_request, truth))

        assert believed[:2] == (slot, spared)

        if ends or len(running) == slots:
            done, held = running.pop(0)
            engine_model.wrote(done, now + 0.3)
            engine_model.end(done, now + 0.5, 0.0)
            engine.release(done.slot, held, now + 0.5)


def test_the_host_cache_does_not_make_a_slot_more_similar() -> None:
    dispatcher, engine_model = a_dispatcher(2, 100_000)
    entry, other = chain([b"s" * 300, b"a" * 500]), chain([b"s" * 300, b"b" * 100])
    long = chain([b"s" * 300, b"a" * 500, b"c" * 6000])
    for now, prompt in enumerate((entry, other), 1):
        request = RunningRequest(
            prompt=prompt,
            slot=0,
            tokens=tokens(prompt),
            cached=0.0,
            answer=0.0,
            started=now,
            reading=1.0,
        )
        engine_model.start(request, now)
        engine_model.end(request, now + 0.5, 0.0)

    slot, cached, _ = pick(
        dispatcher.features(a_request(long, 9.0, "m"), 9.0), engine_model
    )

    assert (slot, cached > 0) == (1, True)


@given(st.lists(prompts, min_size=1, max_size=12), st.integers(1, 4))
def test_a_pinned_slot_costs_no_more_than_the_one_llama_would_take(
    features_of: list[Prompt], slots: int
) -> None:
    dispatcher, engine_model = a_dispatcher(slots, 0)
    for now, prompt in enumerate(features_of[:-1], 1):
        running_request = RunningRequest(
            prompt=prompt,
            slot=now % slots,
            tokens=tokens(prompt),
            cached=0.0,
            answer=0.0,
            started=now,
            reading=1.0,
        )
        engine_model.start(running_request, now)
        engine_model.end(running_request, now + 0.5, 0.0)
    features = dispatcher.features(
        a_request(features_of[-1], 99.0, "m", answer=1.0), 99.0
    )

    theirs = pick(features, engine_model)
    engine_model.pins = True
    ours = pick(features, engine_model)

    worth = [
        3 * loss - engine_model.per_read * cached for _, cached, loss in (ours, theirs)
    ]
    assert worth[0] <= worth[1] + 1e-9
