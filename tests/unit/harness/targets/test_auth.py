"""API keys from the environment."""

import asyncio
from typing import Any

import pytest

from tailgate.harness.config.run_spec import AuthSpec
from tailgate.harness.targets.credentials import Credentials


def headers(**spec: Any) -> dict[str, str]:
    return asyncio.run(Credentials(AuthSpec(**spec)).headers())


def test_without_auth_there_is_no_header() -> None:
    assert asyncio.run(Credentials(None).headers()) == {}


def test_a_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-1\n")
    assert headers(env="MY_KEY") == {"Authorization": "Bearer sk-1"}
    assert headers(env="MY_KEY", header="api-key", scheme="") == {"api-key": "sk-1"}


def test_a_variable_can_t_be_renewed_and_asking_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="`refresh` belongs to `command`"):
        AuthSpec(env="KEY", refresh=60)
