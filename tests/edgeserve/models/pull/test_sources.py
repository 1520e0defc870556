from pathlib import Path

import pytest

from edgeserve.models.pull.sources import (
    HubFile,
    HubRepo,
    LocalFile,
    UnknownSource,
    WebFile,
    parse,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("org/repo", HubRepo("org/repo")),
        ("org/repo:Q4_K_M", HubRepo("org/repo", "Q4_K_M")),
        ("hf.co/org/repo", HubRepo("org/repo")),
        ("hf.co/org/repo:q8_0", HubRepo("org/repo", "q8_0")),
        ("hf://org/repo", HubRepo("org/repo")),
        ("https://huggingface.co/org/re.po-GGUF", HubRepo("org/re.po-GGUF")),
        ("https://hf.co/org/repo/tree/main", HubRepo("org/repo")),
        ("hf://org/repo/a/b.gguf", HubFile("org/repo", "a/b.gguf")),
        ("hf.co/org/repo/b.gguf", HubFile("org/repo", "b.gguf")),
        (
            "https://huggingface.co/org/repo/resolve/v2/b%20c.gguf?download=true",
            HubFile("org/repo", "b c.gguf", "v2"),
        ),
        (
            "https://huggingface.co/org/repo/blob/main/b.gguf",
            HubFile("org/repo", "b.gguf"),
        ),
        ("https://a.org/m.gguf?x=1", WebFile("https://a.org/m.gguf?x=1")),
        ("http://127.0.0.1:80/m.gguf", WebFile("http://127.0.0.1:80/m.gguf")),
        ("http://[::1]/m.gguf", WebFile("http://[::1]/m.gguf")),
        ("./m.gguf", LocalFile(Path("m.gguf"))),
        ("/srv/m.gguf", LocalFile(Path("/srv/m.gguf"))),
    ],
)
def test_a_source_is_what_people_copy(text: str, meant: object) -> None:
    assert parse(text, exists=False) == meant


def test_a_file_that_is_there_is_no_repository() -> None:
    assert parse("org/repo", exists=True) == LocalFile(Path("org/repo"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://a.org/m.gguf", "only https"),
        ("http://127.0.0.1.a.org/m.gguf", "only https"),
        ("ftp://a.org/m.gguf", "only https"),
        ("https://a.org/page", r"ends in \.gguf"),
        ("https://a.org/%2e%2e/%2e%2e/m.gguf", r"ends in \.gguf"),
        ("https://a.org/%00.gguf", r"ends in \.gguf"),
        ("https://a.org/..%2fm.gguf", r"ends in \.gguf"),
        ("https://[::1/m.gguf", "is no source"),
        ("hf://org/repo/../../m.gguf", "is no source"),
        ("hf://../repo", "is no source"),
        ("hf://org", "is no source"),
        ("hf://org/repo/model.safetensors", "no GGUF"),
        ("hf://org/repo/m.gguf:Q4_0", "name one"),
        ("org/m.gguf", "hf://ORG/REPOSITORY/FILE.gguf"),
        ("llama", "is no source"),
        ("", "is no source"),
    ],
)
def test_anything_else_is_refused_with_what_is_possible(text: str, why: str) -> None:
    with pytest.raises(UnknownSource, match=why):
        parse(text, exists=False)
