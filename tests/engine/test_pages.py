"""Page ids have one owner at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchless.engine.pages import PageAllocator


@given(st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60))
def test_every_page_is_free_or_has_exactly_one_owner(num_pages, actions):
    pages = PageAllocator(num_pages)
    owners: list[list[int]] = []
    for takes, number in actions:
        held = [page for owner in owners for page in owner]
        if takes and number <= pages.num_free:
            owners.append(pages.alloc(number))
        elif takes:
            with pytest.raises(ValueError, match="are free"):
                pages.alloc(number)
        elif owners:
            pages.free(owners.pop(number % len(owners)))
        held = [page for owner in owners for page in owner]
        assert len(set(held)) == len(held)
        assert set(held) <= set(range(num_pages))
        assert pages.num_free == num_pages - len(held)
    for owner in owners:
        pages.free(owner)
    assert sorted(pages.alloc(num_pages)) == list(range(num_pages))


@pytest.mark.parametrize("page", [-1, 0, 4])
def test_freeing_a_page_that_nobody_owns_is_refused(page):
    pages = PageAllocator(4)
    with pytest.raises(ValueError, match="not in use"):
        pages.free([page])


def test_freeing_twice_is_refused():
    pages = PageAllocator(4)
    taken = pages.alloc(2)
    pages.free(taken)
    with pytest.raises(ValueError, match="not in use"):
        pages.free(taken)


def test_a_failed_allocation_takes_nothing():
    pages = PageAllocator(3)
    with pytest.raises(ValueError):
        pages.alloc(4)
    assert pages.num_free == 3


def test_rebuild_keeps_only_the_named_pages_in_use():
    pages = PageAllocator(5)
    pages.alloc(4)
    pages.rebuild([1, 3])
    assert sorted(pages.alloc(3)) == [0, 2, 4]


def test_a_cache_without_pages_is_refused():
    with pytest.raises(ValueError, match="at least one page"):
        PageAllocator(0)
