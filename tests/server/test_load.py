"""A short run of what scripts/load_server does for minutes."""

from __future__ import annotations

import pytest

pytest.importorskip("torchless._core")
pytest.importorskip("uvicorn")

from load import PATHS, Load
from servers import running


def test_many_clients_get_the_bits_of_a_solo_run_and_leave_nothing_behind() -> None:
    with running(ctx=512) as server:
        for seconds in (4.0, 20.0, 60.0):  # a slow or busy machine needs longer for as much
            report = Load(server.url, num_jobs=25).run(seconds, num_clients=24)
            assert report.failures == []
            if sum(report.finished.values()) > 60 and sum(report.left.values()) > 20:
                break
        assert set(report.finished) == set(PATHS)


def test_a_request_may_make_way_but_not_push_in() -> None:
    import httpx

    with running(ctx=512) as server:

        def ask(priority: int) -> httpx.Response:
            body = {"prompt": "Once", "max_tokens": 3, "temperature": 0, "priority": priority}
            return httpx.post(f"{server.url}/v1/completions", json=body)

        assert ask(5).json()["choices"] == ask(0).json()["choices"]
        refused = ask(-1)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "priority"
