"""Guesses merged into one tree, cut to what fits, and laid out as rows of a batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from torchless.engine.draft_tree import DraftTree

guesses = st.lists(
    st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.floats(0.05, 1.0)), max_size=8
)


def tree_of(guesses: list[tuple[list[int], float]]) -> DraftTree:
    tree = DraftTree()
    for token_ids, chance in guesses:
        tree.add(token_ids, [None] * len(token_ids), [chance] * len(token_ids))
    return tree


def paths_of(tree: DraftTree) -> set[tuple[int, ...]]:
    """The tokens that lead to each node."""
    paths: list[tuple[int, ...]] = [()]
    for node in range(1, len(tree.token_ids)):
        paths.append((*paths[tree.parents[node]], tree.token_ids[node]))
    assert len(set(paths)) == len(paths), "two nodes of the same path"
    return set(paths[1:])


@given(guesses)
def test_a_tree_holds_all_beginnings_of_its_guesses_once(guesses: list[tuple[list[int], float]]) -> None:
    tree = tree_of(guesses)
    assert paths_of(tree) == {tuple(ids[:n]) for ids, _ in guesses for n in range(1, len(ids) + 1)}
    for ids, _ in guesses:
        node: int | None = 0
        for token_id in ids:
            assert node is not None
            node = tree.child(node, token_id)
        assert node is not None and tree.depths[node] == len(ids)


@given(guesses, st.integers(0, 12))
def test_the_likeliest_nodes_are_a_tree(guesses: list[tuple[list[int], float]], count: int) -> None:
    tree = tree_of(guesses)
    cut = tree.likeliest(count)
    assert cut.num_drafted == min(count, tree.num_drafted)
    assert paths_of(cut) <= paths_of(tree)
    assert all(parent < node for node, parent in enumerate(cut.parents))
    if cut.num_drafted:
        assert sorted(cut.chances[1:]) == sorted(sorted(tree.chances[1:])[-cut.num_drafted :])
        best = max(range(1, len(cut.parents)), key=lambda node: (cut.parents[node] == 0, cut.chances[node]))
        assert cut.chances[1] == cut.chances[best], "the likeliest guess does not come first"


@given(guesses, st.integers(0, 12))
def test_the_first_nodes_are_a_tree(guesses: list[tuple[list[int], float]], count: int) -> None:
    tree = tree_of(guesses)
    cut = tree.first(count)
    assert cut.token_ids == tree.token_ids[: cut.num_drafted + 1]
    assert cut.num_drafted == min(count, tree.num_drafted)
    assert paths_of(cut) <= paths_of(tree)


def test_rows_of_a_batch() -> None:
    tree = DraftTree()
    tree.add([5, 6])
    tree.add([5, 7])
    token_ids, positions = tree.rows(4, 10)
    assert token_ids.tolist() == [4, 5, 6, 7] and positions.tolist() == [10, 11, 12, 12]
    assert tree.parent_rows(20).tolist() == [-1, 20, 21, 21]
    assert token_ids.dtype == positions.dtype == tree.parent_rows(0).dtype == np.int32
    assert not tree.is_chain and tree.first(2).is_chain
