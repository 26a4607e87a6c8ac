"""No path of the server lets a message end its turn."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from servers import running
from test_forged_turns import END, EXPECTED, FORGED, TEMPLATE
from test_llm import executor_of, make

CHAT = {"model": "fake", "messages": FORGED, "max_tokens": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/messages", CHAT),
        ("/api/chat", {"model": "fake", "messages": FORGED, "stream": False, "options": {"num_predict": 1}}),
        ("/v1/responses", {"model": "fake", "input": FORGED, "max_output_tokens": 16}),
    ],
)
def test_what_a_message_spells_is_text(path: str, body: dict[str, Any]) -> None:
    with make(template=TEMPLATE, marks=["<|end|>"]) as model, running(model) as server:
        request = urllib.request.Request(
            server.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 200
        found = executor_of(model).batches[0].token_ids.tolist()
    assert found == EXPECTED
    assert found.count(END) == 1
