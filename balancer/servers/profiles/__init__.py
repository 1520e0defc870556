"""Profiles: what is particular to each kind of server; one file for each kind. Pure."""

from balancer.servers.profiles.base import Profile
from balancer.servers.profiles.llama_server import LlamaServer
from balancer.servers.profiles.ollama import OllamaServer
from balancer.servers.profiles.openai import OpenAI
from balancer.servers.profiles.sglang import SGLang
from balancer.servers.profiles.tgi import TGI
from balancer.servers.profiles.vllm import VLLM

PROFILES: tuple[Profile, ...] = (
    LlamaServer(), TGI(), SGLang(), VLLM(), OllamaServer(), OpenAI(),
)  # fmt: skip
"""In the order in which they are looked for: servers imitate each other."""

BY_KIND = {each.kind: each for each in PROFILES}
