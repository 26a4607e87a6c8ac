"""Names of cache types, and what a token takes in each."""

from __future__ import annotations

import pytest

from torchless.errors import InvalidRequestError
from torchless.kv_types import KV_TYPES, bytes_per_token, kv_type_name, split_kv_type


@pytest.mark.parametrize("name", KV_TYPES)
def test_one_name_is_for_keys_and_values(name: str) -> None:
    assert split_kv_type(name) == (name, name)
    assert kv_type_name(name, name) == name


def test_two_names_are_for_each() -> None:
    assert split_kv_type("k=q8_0,v=f16") == split_kv_type(" v=f16, k=q8_0 ") == ("q8_0", "f16")
    assert kv_type_name("q8_0", "f16") == "k=q8_0,v=f16"


@pytest.mark.parametrize(
    "wrong", ["", "f8", "F16", "k=f16", "k=f16,k=f16", "k=f16,v=f16,v=f16", "f16,f16", "q=f16,v=f16"]
)
def test_anything_else_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(InvalidRequestError, match="k=q8_0,v=f16"):
        split_kv_type(wrong)


def test_bytes_per_token_are_those_of_the_pages() -> None:
    core = pytest.importorskip("torchless._core")
    for kv in (*KV_TYPES, "k=q8_0,v=q4_0"):
        pages = core.kv_page_bytes(*split_kv_type(kv), [(8, 64)] * 16)
        assert pages == bytes_per_token(kv, 16, 8, 64) * core.PAGE_TOKENS
