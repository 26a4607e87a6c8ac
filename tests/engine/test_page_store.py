"""Pages on disk: whole or not at all, believed only if they are what they should be, and no more than may be."""

import errno
import logging
import os
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchless.engine import page_file, page_store
from torchless.engine.page_file import HEADER_BYTES, DamagedPageError, read_header, read_page, write_page
from torchless.engine.page_folder import PageFolder
from torchless.engine.page_store import PageStore
from torchless.errors import InvalidRequestError

NUM_BYTES = 500


def key_of(number):
    return bytes([number]) + b"k" * 31


def payload(number):
    return np.random.default_rng(number).integers(0, 256, NUM_BYTES, np.uint8)


def open_store(folder, max_bytes=1 << 30):
    return PageStore(PageFolder(folder / "pages", max_bytes), bytes(32))


def fill(store, numbers, *, is_chain=True):
    parent = None
    for depth, number in enumerate(numbers):
        store.write(key_of(number), parent, depth if is_chain else 0, payload(number))
        parent = key_of(number) if is_chain else None


def page_files(folder):
    return sorted((folder / "pages").glob("??/*.page"))


def test_what_was_written_is_there_for_the_next_one(tmp_path):
    store = open_store(tmp_path)
    fill(store, range(5))
    store.close()
    assert store.num_written_pages == 5 and not list(tmp_path.rglob(".writing*"))
    again = open_store(tmp_path)
    for number in range(5):
        np.testing.assert_array_equal(again.read(key_of(number), NUM_BYTES), payload(number))
    assert again.read(key_of(7), NUM_BYTES) is None
    assert again.num_read_pages == 5 and again.num_damaged_pages == 0
    again.close()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, HEADER_BYTES + NUM_BYTES - 1), st.integers(1, 255))
def test_a_page_with_any_byte_changed_is_not_believed(tmp_path, place, change):
    path = tmp_path / "a.page"
    write_page(path, key_of(1), key_of(2), 3, payload(1), tmp_path / "b")
    np.testing.assert_array_equal(read_page(path, key_of(1), NUM_BYTES), payload(1))
    content = bytearray(path.read_bytes())
    content[place] ^= change
    path.write_bytes(content)
    with pytest.raises(DamagedPageError):
        read_page(path, key_of(1), NUM_BYTES)


@pytest.mark.parametrize(
    "size", [0, 10, HEADER_BYTES, HEADER_BYTES + NUM_BYTES - 1, HEADER_BYTES + NUM_BYTES + 1]
)
def test_a_damaged_page_is_removed_and_counts_as_missing(tmp_path, size):
    store = open_store(tmp_path)
    fill(store, [1])
    store.close()
    (path,) = page_files(tmp_path)
    path.write_bytes((path.read_bytes() + b"x")[:size])
    again = open_store(tmp_path)
    assert again.read(key_of(1), NUM_BYTES) is None
    assert again.num_damaged_pages == 1 and not path.exists()
    again.close()


def test_a_page_under_the_name_of_another_is_not_believed(tmp_path):
    store = open_store(tmp_path)
    fill(store, [1, 2])
    store.close()
    first, second = page_files(tmp_path)
    second.write_bytes(first.read_bytes())
    again = open_store(tmp_path)
    assert again.read(key_of(2), NUM_BYTES) is None and again.num_damaged_pages == 1
    again.close()


def test_a_page_of_another_size_is_not_believed(tmp_path):
    store = open_store(tmp_path)
    fill(store, [1])
    store.close()
    again = open_store(tmp_path)
    assert again.read(key_of(1), NUM_BYTES - 4) is None
    again.close()


def test_only_pages_that_can_be_found_are_wanted(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    assert store.wants(key_of(1), None, NUM_BYTES)
    assert not store.wants(key_of(2), key_of(1), NUM_BYTES), "what it rests on is not there"
    fill(store, [1])
    assert store.wants(key_of(2), key_of(1), NUM_BYTES) and not store.wants(key_of(1), None, NUM_BYTES)
    monkeypatch.setattr(page_store, "MAX_QUEUED_BYTES", NUM_BYTES - 1)
    assert not store.wants(key_of(3), None, NUM_BYTES), "too much waits to be written"
    store.close()


def test_no_more_is_kept_than_may_be_and_ends_go_before_beginnings(tmp_path):
    num_bytes = NUM_BYTES + HEADER_BYTES
    store = open_store(tmp_path, 10 * num_bytes)
    fill(store, range(100, 106))  # the oldest
    store.close()
    for age, path in enumerate(page_files(tmp_path)):
        os.utime(path, (1000 + age, 1000 + age))  # beginnings were written before ends
    store = open_store(tmp_path, 10 * num_bytes)
    fill(store, range(5))
    store.close()
    assert sum(path.stat().st_size for path in page_files(tmp_path)) <= 10 * num_bytes
    kept = {read_header(path).key for path in page_files(tmp_path)}
    assert kept == {key_of(number) for number in [*range(100, 104), *range(5)]}


def test_a_beginning_counts_as_used_when_its_end_is(tmp_path):
    num_bytes = NUM_BYTES + HEADER_BYTES
    store = open_store(tmp_path)
    fill(store, range(4))
    fill(store, range(10, 14))
    store.close()
    folder = PageFolder(tmp_path / "pages", 8 * num_bytes - 1)
    for path in page_files(tmp_path):
        number = read_header(path).key[0]
        when = 5000 if number in (3, 13) else 1000
        os.utime(path, (when + number, when + number))
    assert set(folder.make_room()) == {key_of(3)}  # its end, not the beginnings that are older
    assert folder.make_room() == []


def test_who_cannot_have_the_lock_removes_nothing(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    store = open_store(tmp_path)
    fill(store, range(4))
    store.close()
    with (tmp_path / "pages" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert PageFolder(tmp_path / "pages", 1).make_room() == []
    assert len(PageFolder(tmp_path / "pages", 1).make_room()) == 4


def test_what_a_killed_writer_left_is_removed_after_a_while(tmp_path):
    store = open_store(tmp_path)
    fill(store, [1])
    store.close()
    (path,) = page_files(tmp_path)
    old, new = path.with_name(".writing-1-a"), path.with_name(".writing-1-b")
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 3600,) * 2)
    PageFolder(tmp_path / "pages", 1 << 30).make_room()
    assert not old.exists() and new.exists() and path.exists()


def test_a_full_disk_is_told_once_and_leaves_nothing_half_written(tmp_path, monkeypatch, caplog):
    store = open_store(tmp_path)
    write = os.write

    def full(handle, content):
        if len(content) == NUM_BYTES:  # the payload: the header still went
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content)

    monkeypatch.setattr(page_file.os, "write", full)
    with caplog.at_level(logging.WARNING, "torchless"):
        fill(store, range(3), is_chain=False)
        store.close()
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]
    assert not page_files(tmp_path) and not list(tmp_path.rglob(".writing*"))
    assert not store.wants(key_of(9), None, NUM_BYTES)


def test_a_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch, caplog):
    store = open_store(tmp_path)
    fill(store, [1])
    store.close()
    opened = os.open

    def read_only(path, flags, *rest):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *rest)

    monkeypatch.setattr(page_file.os, "open", read_only)
    again = open_store(tmp_path)
    with caplog.at_level(logging.WARNING, "torchless"):
        fill(again, [2, 3], is_chain=False)
        again.close()
    assert [record.getMessage().count("Read-only") for record in caplog.records] == [1]
    np.testing.assert_array_equal(again.read(key_of(1), NUM_BYTES), payload(1))


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(tmp_path, caplog):
    (tmp_path / "pages").parent.joinpath("file").write_text("in the way")
    store = PageStore(PageFolder(tmp_path / "file" / "pages", 1 << 20), bytes(32))
    with caplog.at_level(logging.WARNING, "torchless"):
        fill(store, [1])
        store.close()
    assert "cannot be written" in caplog.text and store.read(key_of(1), NUM_BYTES) is None


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_the_folder_is_private(tmp_path):
    store = open_store(tmp_path)
    fill(store, [1])
    store.close()
    assert (tmp_path / "pages").stat().st_mode & 0o777 == 0o700
    assert page_files(tmp_path)[0].stat().st_mode & 0o777 == 0o600
    (tmp_path / "pages").chmod(0o755)
    with pytest.raises(InvalidRequestError, match=r"mode 755, expected user .* mode 700"):
        open_store(tmp_path)
    (tmp_path / "other").write_text("")
    with pytest.raises(InvalidRequestError, match="is no folder"):
        PageFolder(tmp_path / "other", 1)


def test_closing_twice_is_fine_and_ends_the_thread(tmp_path):
    before = threading.active_count()
    store = open_store(tmp_path)
    assert threading.active_count() == before + 1
    store.close()
    store.close()
    assert threading.active_count() == before


def test_a_store_that_is_forgotten_ends_its_thread(tmp_path):
    before = threading.active_count()
    store = open_store(tmp_path)
    del store
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
