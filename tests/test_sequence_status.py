"""`LLM.sequences`: what each request under way is at, seen from another thread."""

from __future__ import annotations

from test_llm import make

from torchless import Request


def test_nothing_under_way() -> None:
    with make() as model:
        assert model.sequences() == []
        model.generate("hello", max_tokens=3)
        assert model.sequences() == []


def test_a_request_is_seen_while_it_is_written() -> None:
    seen = []
    with make() as model:

        def look(ids: object, logits: object) -> None:
            seen.append(model.sequences())

        future = model.submit(
            Request("hello", max_tokens=4, temperature=0, ignore_eos=True, processors=(look,))
        )
        usage = future.result().usage
    assert [len(sequences) for sequences in seen] == [1] * len(seen) and len(
        seen
    ) >= usage.num_completion_tokens
    statuses = [sequences[0] for sequences in seen]
    assert all(status.is_running for status in statuses)
    assert {status.num_prompt_tokens for status in statuses} == {usage.num_prompt_tokens}
    assert [status.num_generated_tokens for status in statuses][:4] == [0, 1, 2, 3]
    assert {status.max_tokens for status in statuses} == {usage.num_prompt_tokens + 4}
    assert all(status.num_pages >= 1 and status.seconds >= 0 for status in statuses)
