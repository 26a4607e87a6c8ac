"""An engine that begins where another one ended: pages from disk, and what is wrong with them, change no answer."""

import shutil

import numpy as np
import pytest
from fake_executor import FakeExecutor
from fake_sequences import alone, finish, make, new_tokens, prompt_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_sharing import PARAMS, check, num_computed

from torchless.backends.base import PAGE_TOKENS
from torchless.engine import stored_pages
from torchless.engine.engine import Engine
from torchless.engine.page_folder import PageFolder
from torchless.engine.page_store import PageStore
from torchless.sampling.parameters import SamplingParams


def open_store(folder, fingerprint=b"a" * 32, max_bytes=1 << 30):
    return PageStore(PageFolder(folder / "pages", max_bytes), fingerprint)


def run_one(engine, prompt, num_new=5):
    engine.add(sequence := make(prompt, num_new))
    finish(engine, sequence)
    assert new_tokens(sequence) == alone(prompt, num_new, PARAMS)
    return sequence


def test_a_later_engine_computes_only_what_the_first_did_not(tmp_path):
    store = open_store(tmp_path)
    run_one(Engine(FakeExecutor(), page_store=store), prompt_of(100))
    store.close()
    store, executor = open_store(tmp_path), FakeExecutor()
    engine = Engine(executor, page_store=store)
    sequence = run_one(engine, [*prompt_of(100)[:80], 1, 2])
    assert sequence.num_cached_tokens == 64 == engine.scheduler.prefix_cache.num_restored_tokens
    assert num_computed(executor) == 82 - 64 + 4
    check(engine, [sequence])
    store.close()


def test_pages_of_another_model_are_not_found(tmp_path):
    store = open_store(tmp_path)
    run_one(Engine(FakeExecutor(), page_store=store), prompt_of(100))
    store.close()
    store = open_store(tmp_path, b"b" * 32)
    assert run_one(Engine(FakeExecutor(), page_store=store), prompt_of(100)).num_cached_tokens == 0
    store.close()


def test_a_page_that_was_lost_is_computed_and_written_again(tmp_path):
    store = open_store(tmp_path)
    run_one(Engine(FakeExecutor(), page_store=store), prompt_of(100))
    store.close()
    paths = sorted(tmp_path.rglob("*.page"), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) == 3
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"?")
    for expected in (32, 96):
        store = open_store(tmp_path)
        assert run_one(Engine(FakeExecutor(), page_store=store), prompt_of(100)).num_cached_tokens == expected
        assert store.num_damaged_pages == (expected == 32)
        store.close()


def test_others_do_not_wait_for_a_long_text_from_disk(tmp_path, monkeypatch):
    """Only so much is read before a step in which somebody else has work."""
    store = open_store(tmp_path)
    run_one(Engine(FakeExecutor(), page_store=store), prompt_of(400))
    store.close()
    monkeypatch.setattr(stored_pages, "MOST_BYTES_AT_ONCE", 3 * PAGE_TOKENS * 4)
    store, executor = open_store(tmp_path), FakeExecutor()
    engine = Engine(executor, page_store=store)
    engine.add(beside := make(prompt_of(5, 1), 40))
    engine.step()
    engine.add(long := make(prompt_of(400), 5))
    for pages in (3, 6, 9):
        assert [run.sequence for run in engine.step().runs] == [beside]
        assert long.num_pages == pages
    finish(engine, beside, long)
    assert long.num_cached_tokens == 384
    alone_in_it = Engine(FakeExecutor(), page_store=store)
    alone_in_it.add(long := make(prompt_of(400), 5))
    assert len(alone_in_it.step().runs) == 1 and long.num_cached_tokens == 384
    store.close()


def test_where_no_page_is_free_nothing_is_read(tmp_path):
    store = open_store(tmp_path)
    run_one(Engine(FakeExecutor(), page_store=store), prompt_of(90))
    store.close()
    store = open_store(tmp_path)
    engine = Engine(FakeExecutor(num_pages=5, max_batch_tokens=64), page_store=store)
    engine.add(old := make(prompt_of(64, 1), 70))
    engine.step()
    engine.add(young := make(prompt_of(90), 30))
    while not engine.scheduler.is_idle:
        engine.step()
        check(engine, [old, young])
    assert new_tokens(old) == alone(prompt_of(64, 1), 70, PARAMS)
    assert new_tokens(young) == alone(prompt_of(90), 30, PARAMS)
    store.close()


# (text, tokens of it, tokens of its own, tokens to generate), and after how many of them the process restarts
work = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 130), st.integers(1, 30), st.integers(1, 40)),
    min_size=2,
    max_size=8,
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(work, st.integers(1, 4), st.integers(7, 16), st.integers(1, 40), st.booleans(), st.randoms())
def test_any_history_over_restarts_gives_every_sequence_its_solo_tokens(
    tmp_path, work, together, num_pages, max_kept_pages, fast, random
):
    """The folder is small, files are damaged or lost between restarts, and two engines use it at once."""
    shutil.rmtree(tmp_path / "pages", ignore_errors=True)
    for start in range(0, len(work), together):
        stores = [open_store(tmp_path, max_bytes=max_kept_pages * 300) for _ in range(2)]
        engines = [
            Engine(FakeExecutor(num_pages=num_pages, max_batch_tokens=48, fast=fast), page_store=store)
            for store in stores
        ]
        everyone = []
        for number, (text, shared, own, num_new) in enumerate(work[start : start + together]):
            prompt = prompt_of(130, text)[:shared] + prompt_of(own, number)
            sequence = make(prompt, num_new, SamplingParams(seed=number))
            engines[number % 2].add(sequence)
            everyone.append((prompt, num_new, sequence))
        while not all(engine.scheduler.is_idle for engine in engines):
            for engine in engines:
                engine.step()
                check(engine, [sequence for _, _, sequence in everyone])
        for store in stores:
            store.close()
        for number, (prompt, num_new, sequence) in enumerate(everyone):
            assert new_tokens(sequence) == alone(prompt, num_new, SamplingParams(seed=number), fast)
        for path in tmp_path.rglob("*.page"):
            if random.random() < 0.2:
                content = bytearray(path.read_bytes())
                content[random.randrange(len(content))] ^= 1 + random.randrange(255)
                path.write_bytes(content)
            elif random.random() < 0.2:
                path.unlink()


def test_a_store_that_breaks_a_read_off_leaves_an_engine_that_goes_on(tmp_path):
    store = open_store(tmp_path)
    run_one(Engine(FakeExecutor(), page_store=store), prompt_of(100))
    store.close()
    store, executor = open_store(tmp_path), FakeExecutor()
    engine = Engine(executor, page_store=store)
    write, calls = executor.write_page, []

    def interrupted(page, content):
        calls.append(page)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(page, content)

    executor.write_page = interrupted
    engine.add(sequence := make(prompt_of(100), 5))
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    engine.recover()
    check(engine, [sequence])
    finish(engine, sequence)
    assert new_tokens(sequence) == alone(prompt_of(100), 5, PARAMS)
    np.testing.assert_array_equal(sequence.history[:100], prompt_of(100))
    store.close()
