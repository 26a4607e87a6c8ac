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

    Example:
        >>> tree = DraftTree()
        >>> tree.add([5, 6]), tree.add([5, 7])
        ([1, 2], [1, 3])
        >>> tree.child(1, 7), tree.is_chain
        (3, False)
    """

    __slots__ = ("_children", "chances", "depths", "parents", "sources", "token_ids")

    def __init__(self) -> None:
        self.token_ids: list[int] = [-1]
        self.parents: list[int] = [-1]
        self.depths: list[int] = [0]
        self.chances: list[float] = [1.0]
        self.sources: list[Hashable] = [None]
        self._children: dict[tuple[int, int], int] = {}

    @property
    def num_drafted(self) -> int:
        """Nodes without the first."""
        return len(self.token_ids) - 1

    @property
    def is_chain(self) -> bool:
        """Whether every node follows the one before it."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def child(self, node: int, token_id: int) -> int | None:
        """The node of this token behind another node."""
        return self._children.get((node, token_id))

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
            found = self._children.get((node, token_id))
            if found is None:
                found = len(self.token_ids)
                self._children[node, token_id] = found
                self.token_ids.append(token_id)
                self.parents.append(node)
                self.depths.append(self.depths[node] + 1)
                self.chances.append(self.chances[node] * (chances[i] if chances else 1.0))
                self.sources.append(sources[i] if sources else None)
            node = found
            nodes.append(node)
        return nodes

    def likeliest(self, count: int) -> DraftTree:
        """The tree of the `count` likeliest drafted nodes, the likeliest child first.

        A child is never likelier than its parent, so that the result is a tree. The likeliest guess comes first and as
        a whole: if it is kept, no keys and values have to be moved.
        """
        if count >= self.num_drafted and self.is_chain:
            return self
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
            names[node] = result._append(parent, self, node)
            stack += reversed(children.get(node, []))
        return result

    def first(self, count: int) -> DraftTree:
        """The tree of the first `count` drafted nodes."""
        if count >= self.num_drafted:
            return self
        result = DraftTree()
        for node in range(1, count + 1):
            result._append(self.parents[node], self, node)
        return result

    def _append(self, parent: int, other: DraftTree, node: int) -> int:
        index = len(self.token_ids)
        self._children[parent, other.token_ids[node]] = index
        self.token_ids.append(other.token_ids[node])
        self.parents.append(parent)
        self.depths.append(other.depths[node])
        self.chances.append(other.chances[node])
        self.sources.append(other.sources[node])
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
