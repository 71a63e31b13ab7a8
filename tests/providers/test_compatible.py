"""Rows of providers: data that hangs together."""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import urlsplit

import pytest

from trunkline.v1 import generation_pb2
from trunkline_server.providers.base import Capabilities
from trunkline_server.providers.compatible import ROWS
from trunkline_server.providers.dialects.openai_chat.quirks import Quirks, quirks_of
from trunkline_server.providers.servers import SERVERS

PARAMS = {field.name for field in generation_pb2.GenerationParams.DESCRIPTOR.fields}
#: Their usual variable holds a key for much else: it is taken only by who names it.
UNASKED = {"cloudflare", "databricks", "github", "snowflake"}
#: Settings that are addresses and no part of one.
WHOLE = {"endpoint", "host"}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_an_address_and_a_key_unless_one_runs_it_oneself(name):
    row = ROWS[name]

    if name in SERVERS:
        assert (row.base_url, row.key_env) == ("", "")
    else:
        values = {setting: f"https://{setting}" if setting in WHOLE else setting for setting in row.settings}
        address = urlsplit(row.address(values))
        assert (address.scheme, address.path.endswith("/")) == ("https", False)
        assert re.fullmatch(r"[A-Z0-9_]+", row.key_env) or (row.key_env == "" and name in UNASKED)


def test_what_an_address_is_made_of_is_asked_for_by_name():
    with pytest.raises(ValueError, match=r"set settings\.account or CLOUDFLARE_ACCOUNT_ID: the id of a"):
        ROWS["cloudflare"].address({})
    assert ROWS["databricks"].address({"host": "https://acme.test/"}) == "https://acme.test/serving-endpoints"


@pytest.mark.parametrize("name", ROWS)
def test_a_row_names_parameters_of_the_contract_only(name):
    capabilities = ROWS[name].capabilities

    assert capabilities.params is not None
    assert capabilities.params <= PARAMS
    assert set(quirks_of(capabilities).renamed) <= capabilities.params
    assert ("n" in capabilities.params) == capabilities.choices
    assert ("logprobs" in capabilities.params) == capabilities.logprobs
    assert ("reasoning" in capabilities.params) or not capabilities.reasoning


@pytest.mark.parametrize("name", ROWS)
def test_a_rule_for_models_names_fields_that_exist(name):
    for rule in ROWS[name].models:
        assert set(rule.capabilities) <= {field.name for field in dataclasses.fields(Capabilities)}
        assert set(rule.quirks) <= {field.name for field in dataclasses.fields(Quirks)}
        assert rule.without <= PARAMS


def test_a_key_travels_in_the_authorization():
    assert ROWS["groq"].authorization("k") == {"authorization": "Bearer k"}
    assert ROWS["vllm"].authorization("") == {}


@pytest.mark.parametrize(
    ("model", "reasons", "samples", "takes_tools"),
    [
        ("gpt-4.1", False, True, True),
        ("gpt-4o-mini-2024-07-18", False, True, True),
        ("o3-mini", True, False, True),
        ("o1-mini", True, False, False),
        ("gpt-5", True, False, True),
        ("gpt-5-nano-2025-08-07", True, False, True),
        ("gpt-5.2", True, True, True),
        ("gpt-5-chat-latest", False, True, True),
        ("ft:gpt-4o-mini:acme::x", False, True, True),
        ("something-new", False, True, True),
    ],
)
def test_openais_models_are_told_apart(model, reasons, samples, takes_tools):
    capabilities = ROWS["openai"].capabilities_of(model)

    assert capabilities.params is not None
    assert ("temperature" in capabilities.params) == samples
    assert (capabilities.reasoning, capabilities.tools) == (reasons, takes_tools)
    assert ("logprobs" in capabilities.params) == capabilities.logprobs
    assert quirks_of(capabilities).max_tokens == "max_completion_tokens"
