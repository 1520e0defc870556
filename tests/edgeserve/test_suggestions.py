import pytest

from edgeserve.openai import ROUTES
from edgeserve.suggestions import LONGEST_PATH, hint


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("//v1//chat/completions", "/v1/chat/completions"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/x/embeddings", "/embeddings"),
        ("/openai/v1/embeddings", "/v1/embeddings"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/embedding", "/v1/embeddings"),
        ("/tokenise", "/tokenize"),
        ("/v1/slots", "/slots"),
        ("/v1/response", "/v1/responses"),
    ],
)
def test_a_slip_finds_its_route(path: str, meant: str) -> None:
    assert hint(path, ROUTES) == f"did you mean {meant}?"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/chat", "Ollama"),
        ("/api/embeddings", "Ollama"),
        ("/api/tags", "Ollama"),
        ("/v1beta/models/x:generateContent", "Gemini"),
        ("/v1/audio/transcriptions", "text"),
        ("/v1/images/generations", "text"),
        ("/v1/files", "OpenAI"),
        ("/", "docs/api.md"),
        ("/" + "a" * LONGEST_PATH, "docs/api.md"),
    ],
)
def test_what_others_serve_is_named(path: str, said: str) -> None:
    assert said in hint(path, ROUTES)
    assert "did you mean" not in hint(path, ROUTES)
