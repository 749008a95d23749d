"""What the vectors of a server depend on; and that no key can be written down."""

from __future__ import annotations

from typing import Any

import pytest

from selection.encoders import KINDS, RemoteSpec, record_of
from selection.errors import InvalidOption

URL = "http://localhost:8000"


def spec(**options: Any) -> RemoteSpec:
    return RemoteSpec(**{"model": "org/model", "url": URL} | options)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/embeddings"),
        ("http://localhost:8000/", "http://localhost:8000/v1/embeddings"),
        ("https://host/v1", "https://host/v1/embeddings"),
        ("https://host/api/v3/", "https://host/api/v3/embeddings"),
        ("http://[::1]:80/v1/embeddings", "http://[::1]:80/v1/embeddings"),
    ],
)
def test_endpoint(url: str, endpoint: str) -> None:
    assert spec(url=url).endpoint == endpoint


@pytest.mark.parametrize(
    "option",
    [
        {"url": "https://elsewhere/v1"},
        {"api_key_env": "KEY"},
        {"batch_size": 1},
        {"concurrency": 1},
        {"timeout_s": 1},
        {"retries": 0},
        {"target_prompt": "query: "},
        {"target_extra_body": {"input_type": "query"}},
        {"extra_body": {}},
    ],
)
def test_fingerprint__how_the_server_is_asked_does_not_count(option: dict[str, Any]) -> None:
    assert spec(**option).fingerprint() == spec().fingerprint()


def test_fingerprint__what_changes_vectors_counts() -> None:
    options: list[dict[str, Any]] = [
        {},
        {"model": "org/other"},
        {"revision": "2"},
        {"dimensions": 8},
        {"template": "tulu"},
        {"turns": "prompt"},
        {"prompt": "passage: "},
        {"extra_body": {"truncate_prompt_tokens": -1}},
        {"store": "float32"},
    ]
    prints = {spec(**option).fingerprint() for option in options}
    assert len(prints) == len(options)
    assert all(len(each) == 32 for each in prints)


def test_for_targets__have_their_own_prompt_and_fields() -> None:
    pool = spec(
        prompt="passage: ",
        target_prompt="query: ",
        extra_body={"input_type": "passage"},
        target_extra_body={"input_type": "query"},
    )
    assert pool.for_targets() == spec(prompt="query: ", extra_body={"input_type": "query"})
    assert spec(prompt="a").for_targets() == spec(prompt="a")
    assert spec(prompt="a", target_prompt="").for_targets() == spec()


def test_record__rebuilds_it() -> None:
    one_of_each = spec(prompt="a", extra_body={"b": [1]}, api_key_env="KEY", dimensions=3)
    assert KINDS["remote"].spec(**record_of(one_of_each)) == one_of_each


SECRET = "sk-very-secret"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": f"http://me:{SECRET}@host"}, "url must be without user, password and query"),
        ({"url": f"http://{SECRET}@host"}, "url must be without user, password and query"),
        ({"url": f"http://host/v1?key={SECRET}"}, "url must be without user, password and query"),
        ({"url": f"http://host/#{SECRET}"}, "url must be without user, password and query"),
        ({"url": f"{SECRET}"}, "url must begin with http:// or https:// and name a host"),
        ({"url": f"ftp://host/{SECRET}"}, "url must begin with http:// or https:// and name a host"),
        ({"url": f"http://ho st/{SECRET}"}, "url must begin with http:// or https:// and name a host"),
        ({"url": f"http://host:port/{SECRET}"}, "url is no address; for example http://localhost:8000"),
        ({"url": f"http://[::1/{SECRET}"}, "url is no address; for example http://localhost:8000"),
        ({"url": " "}, "url must be text that is not empty"),
        ({"api_key_env": SECRET}, "api_key_env must be the name of an environment variable"),
        ({"api_key_env": "abc123"}, "api_key_env must be the name of an environment variable"),
        ({"model": ""}, "model must be text that is not empty"),
        ({"dimensions": 0}, "dimensions must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"concurrency": True}, "concurrency must be an integer >= 1, got True"),
        ({"retries": -1}, "retries must be an integer >= 0, got -1"),
        ({"timeout_s": 0}, "timeout_s must be a finite number > 0, got 0"),
        ({"template": "chat_template"}, "template must be one of plain, tulu"),
        ({"extra_body": {"model": "x"}}, "extra_body must be without model, which winnow sets"),
        ({"extra_body": {"x": float("nan")}}, "extra_body must be as JSON can hold it"),
        ({"target_extra_body": [1]}, "target_extra_body must be a mapping of fields of the request"),
    ],
)
def test_a_wrong_option__is_refused_without_secrets(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        spec(**options)
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.option == next(iter(options))
