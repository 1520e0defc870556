"""Profiles: what is particular to each kind of server; one file for each kind. Pure."""

from edgeserve.servers.profiles.base import Profile
from edgeserve.servers.profiles.llama_server import LlamaServer
from edgeserve.servers.profiles.lmstudio import LMStudio
from edgeserve.servers.profiles.localai import LocalAI
from edgeserve.servers.profiles.ollama import OllamaServer
from edgeserve.servers.profiles.openai import OpenAI
from edgeserve.servers.profiles.ray_serve import RayServe
from edgeserve.servers.profiles.sglang import SGLang
from edgeserve.servers.profiles.tensorrt_llm import TensorRTLLM
from edgeserve.servers.profiles.tgi import TGI
from edgeserve.servers.profiles.vllm import VLLM
from edgeserve.wire import EngineReport

PROFILES: tuple[Profile, ...] = (
    LlamaServer(), LocalAI(), LMStudio(), TGI(), RayServe(), SGLang(), VLLM(),
    TensorRTLLM(), OllamaServer(), OpenAI(),
)  # fmt: skip
"""In the order in which they are looked for: servers imitate each other. Ray's proxy is
before the engines whose list of models its applications may pass on."""

BY_KIND: dict[str, Profile] = {each.kind: each for each in PROFILES}


def profile_of(engine: EngineReport) -> Profile:
    """Return the profile of the server behind an engine of the kind `server`."""
    return BY_KIND.get(engine.build, BY_KIND["openai"])
