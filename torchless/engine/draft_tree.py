"""A tree of drafted tokens below the last token of one sequence: what may come next, merged from several guesses."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence as SequenceOf

import numpy as np
import numpy.typing as npt

__all__ = ["DraftTree"]


class DraftTree:
    """Tokens that may follow a sequence, as a trie: guesses that begin alike share their beginning.

    Node 0 is the sequence's last token, which is known and not drafted; further nodes follow in the order in which they
    were added, each behind its parent. So the first so many nodes are a tree, too.

    Attributes:
        token_ids, parents, depths: of each node; node 0 has -1, -1 and 0.
        chances: the estimated probability of each node to be kept; 1.0 for node 0.
        sources: what each node rests on (`drafters.Guess`).
        is_chain: whether every node follows the one before it.

    Example:
        >>> tree = DraftTree()
        >>> tree.add([5, 6]), tree.add([5, 7])
        ([1, 2], [1, 3])
        >>> tree.child(1, 7), tree.is_chain
        (3, False)
    """

    __slots__ = ("_children", "chances", "depths", "is_chain", "parents", "sources", "token_ids")

    def __init__(self) -> None:
        self.token_ids: list[int] = [-1]
        self.parents: list[int] = [-1]
        self.depths: list[int] = [0]
        self.chances: list[float] = [1.0]
        self.sources: list[Hashable] = [None]
        self.is_chain = True
        self._children: dict[tuple[int, int], int] = {}  # kept once it is no chain

    @property
    def num_drafted(self) -> int:
        """Nodes without the first."""
        return len(self.token_ids) - 1

    def child(self, node: int, token_id: int) -> int | None:
        """The node of this token behind another node."""
        if not self.is_chain:
            return self._children.get((node, token_id))
        following = node + 1
        is_found = following < len(self.token_ids) and self.token_ids[following] == token_id
        return following if is_found else None

    def add(
        self, token_ids: SequenceOf[int], sources: SequenceOf[Hashable] = (), chances: SequenceOf[float] = ()
    ) -> list[int]:
        """Adds a guess; returns its nodes, those that were there already included.

        Args:
            sources: noted at new nodes; None where they are left out.
            chances: of each token, if those before it are right; 1.0 where they are left out.
        """
        node, nodes = 0, []
        for i, token_id in enumerate(token_ids):
            found = self.child(node, token_id)
            if found is None:
                found = self._append(
                    node,
                    token_id,
                    self.chances[node] * (chances[i] if chances else 1.0),
                    sources[i] if sources else None,
                )
            node = found
            nodes.append(node)
        return nodes

    def likeliest(self, count: int) -> DraftTree:
        """The tree of the `count` likeliest drafted nodes, the likeliest child first.

        A child is never likelier than its parent, so that the result is a tree. The likeliest guess comes first and as
        a whole: if it is kept, no keys and values have to be moved.
        """
        if self.is_chain:
            return self.first(count)
        order = sorted(range(1, len(self.token_ids)), key=lambda node: (-self.chances[node], node))
        kept = set(order[: max(count, 0)])
        children: dict[int, list[int]] = {}
        for node in order:
            if node in kept:
                children.setdefault(self.parents[node], []).append(node)
        result, names, stack = DraftTree(), {0: 0}, list(reversed(children.get(0, [])))
        while stack:
            node = stack.pop()
            parent = names[self.parents[node]]
            names[node] = result._copy(parent, self, node)
            stack += reversed(children.get(node, []))
        return result

    def first(self, count: int) -> DraftTree:
        """The tree of the first `count` drafted nodes."""
        if count >= self.num_drafted:
            return self
        result = DraftTree()
        for node in range(1, count + 1):
            result._copy(self.parents[node], self, node)
        return result

    def _copy(self, parent: int, other: DraftTree, node: int) -> int:
        return self._append(parent, other.token_ids[node], other.chances[node], other.sources[node])

    def _append(self, parent: int, token_id: int, chance: float, source: Hashable) -> int:
        index = len(self.token_ids)
        if self.is_chain and parent != index - 1:
            self.is_chain = False
            pairs = zip(self.parents[1:], self.token_ids[1:], strict=True)
            self._children = {pair: child for child, pair in enumerate(pairs, 1)}
        if not self.is_chain:
            self._children[parent, token_id] = index
        self.token_ids.append(token_id)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.chances.append(chance)
        self.sources.append(source)
        return index

    def rows(self, last_token: int, position: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Token ids and positions of all nodes, the first of which is the sequence's last token."""
        token_ids = np.array(self.token_ids, dtype=np.int32)
        token_ids[0] = last_token
        return token_ids, position + np.array(self.depths, dtype=np.int32)

    def parent_rows(self, first_row: int) -> npt.NDArray[np.int32]:
        """The parents as rows of a batch in which node 0 is row `first_row` (`Batch.tree_parents`)."""
        parents: npt.NDArray[np.int32] = np.array(self.parents, dtype=np.int32) + np.int32(first_row)
        parents[0] = -1
        return parents
