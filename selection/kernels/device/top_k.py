"""The implementation of `top_k` for vectors on a device (see `tensor`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from selection.kernels.compiled.margin import absolute_margin
from selection.kernels.device.tensor import (
    Tensor,
    below,
    checked_squares,
    dots,
    full_float32,
    pairs_at_once,
    slices,
    to_device,
)
from selection.kernels.query_lists import QueryLists
from selection.types import DeviceVectors, Doubles, Floats, Mask, Rows

# Entries held on the host before lists are cut back to their depth.
HELD = 2**21


def top_k(
    vectors: DeviceVectors,
    lists: QueryLists,
    depth: int,
    skip: Mask | None,
    bound: tuple[Doubles, Rows] | None,
    score: Doubles,
    row: Rows,
) -> None:
    """Write the best rows of each list to score and row, as `top_k.top_k` describes.

    A first pass finds the depth-th highest float32 similarity of each list. Rows lower than that by more than two
    margins are not among the best; a second pass works out all others.

    Memory on the device: a few tiles, 4 bytes * lists * depth of one part of the lists.
    """
    n = vectors.shape[0]
    norm = _largest_norm(vectors)
    keep = to_device(np.ones(n, bool) if skip is None else ~skip, vectors)
    ceiling = np.full(lists.count, np.inf) if bound is None else bound[0]
    with full_float32():
        for first, last in lists.parts:
            part = _Part(vectors, lists, first, last, norm)
            top = to_device(ceiling[first:last], vectors)
            floor = part.floor(keep, top, depth)
            best = _Best(last - first, depth, bound and (bound[0][first:last], bound[1][first:last]))
            for entries in part.exact(keep, floor, top):
                best.offer(*entries)
            best.write(score[first:last], row[first:last])


def max_similarity(vectors: DeviceVectors, lists: QueryLists) -> Floats:
    """(n,) float32, as `top_k.max_similarity`; `lists` is one of all queries."""
    n = vectors.shape[0]
    best = np.full(n, -np.inf)
    part = _Part(vectors, lists, 0, 1, _largest_norm(vectors))
    nothing = to_device(np.full(1, np.inf), vectors)
    with full_float32():
        for _, rows, exact in part.exact(to_device(np.ones(n, bool), vectors), -nothing, nothing):
            best[rows] = exact
    with np.errstate(over="ignore"):
        return best.astype(np.float32)


def similarity_to(vectors: DeviceVectors, query: Doubles) -> Doubles:
    """(n,) float64, as `top_k.similarity_to`."""
    n, d = vectors.shape
    checked_squares(vectors)
    wanted = to_device(query[None], vectors)
    out = np.empty(n)
    for at in slices(n, d):
        out[at] = dots(vectors.part(at), wanted).cpu().numpy()
    return out


def _largest_norm(vectors: DeviceVectors) -> float:
    squares = checked_squares(vectors)
    return float(squares.max().sqrt()) if len(squares) else 0.0


class _Part:
    """Some lists, their queries on the device, and the float32 similarities of the rows to them.

    Args:
        norm: the largest of a row.
    """

    def __init__(self, vectors: DeviceVectors, lists: QueryLists, first: int, last: int, norm: float) -> None:
        import torch

        self.vectors = vectors
        start, stop = lists.starts[first], lists.starts[last]
        self.queries = to_device(lists.queries[start:stop], vectors)
        self.lengths = to_device(np.diff(lists.starts[first : last + 1]), vectors)
        self.single = len(self.queries) == len(self.lengths)
        self.list_of = torch.repeat_interleave(self.lengths)
        margin = absolute_margin(vectors.shape[1], lists.norms[first:last], norm)
        self.margin = to_device(margin, vectors)[:, None]

    def tiles(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, (queries, rows) float32 similarities and (lists, rows) the highest of each list."""
        import torch

        n, d = self.vectors.shape
        for at in slices(n, d, len(self.queries)):
            coarse = self.queries @ self.vectors.part(at).float().T
            if self.single:
                yield at, coarse, coarse
            elif len(self.lengths) == 1:
                yield at, coarse, coarse.amax(dim=0, keepdim=True)
            else:
                yield at, coarse, torch.segment_reduce(coarse, "max", lengths=self.lengths, axis=0)

    def floor(self, keep: Tensor, top: Tensor, depth: int) -> Tensor:
        """(lists,) float64: similarities below it are not among the `depth` best of what is kept and surely below `top`."""
        import torch

        best = torch.full((len(self.lengths), depth), -torch.inf, device=keep.device)
        under = below(top[:, None] - self.margin)
        for at, _, highest in self.tiles():
            # Not a number, after an overflow, is not sure.
            sure = torch.where(keep[at] & (highest < under), highest, -torch.inf)
            tile_best = sure.topk(min(depth, sure.shape[1]), dim=1).values
            best = torch.cat([best, tile_best], dim=1).topk(depth, dim=1).values
        return best[:, -1].double() - 2 * self.margin[:, 0]

    def exact(self, keep: Tensor, floor: Tensor, top: Tensor) -> Iterator[tuple[Rows, Rows, Doubles]]:
        """Yield list, row and exact similarity of all kept pairs that may lie between floor and top, each once."""
        import torch

        low, high = below(floor[:, None]), -below(-(top[:, None] + self.margin))
        for at, coarse, highest in self.tiles():
            # Written so that what is not a number passes.
            near = ~(highest < low) & ~(highest > high) & keep[at]
            if not self.single:
                rival = below(highest.double() - 2 * self.margin)
                near = near[self.list_of] & ~(coarse < rival[self.list_of])
            query, column = near.nonzero(as_tuple=True)
            row = column + at.start
            size = pairs_at_once(self.vectors.shape[1])
            value = torch.cat(
                [
                    dots(self.vectors.part(r), self.queries[q])
                    for r, q in zip(row.split(size), query.split(size), strict=True)
                ]
            )
            if self.single:
                yield query.cpu().numpy(), row.cpu().numpy(), value.cpu().numpy()
                continue
            pair, place = torch.unique(self.list_of[query] * len(keep) + row, return_inverse=True)
            highest_of = torch.full((len(pair),), -torch.inf, dtype=torch.float64, device=keep.device)
            highest_of.scatter_reduce_(0, place, value, "amax")
            yield (pair // len(keep)).cpu().numpy(), (pair % len(keep)).cpu().numpy(), highest_of.cpu().numpy()


class _Best:
    """The `depth` best entries of each list so far, and some more.

    Args:
        bound: only what comes after these (score, row) is taken.
    """

    def __init__(self, count: int, depth: int, bound: tuple[Doubles, Rows] | None) -> None:
        self.depth, self.bound = depth, bound
        self.limit = max(HELD, 2 * count * depth)
        self.parts: list[tuple[Rows, Rows, Doubles]] = []
        self.held = 0

    def offer(self, which: Rows, row: Rows, score: Doubles) -> None:
        """Take entries in."""
        if self.bound is not None:
            bound_score, bound_row = self.bound[0][which], self.bound[1][which]
            after = (score < bound_score) | ((score == bound_score) & (row > bound_row))
            which, row, score = which[after], row[after], score[after]
        self.parts.append((which, row, score))
        self.held += len(row)
        if self.held > self.limit:
            self.parts = [self._cut()[:3]]
            self.held = len(self.parts[0][0])

    def _cut(self) -> tuple[Rows, Rows, Doubles, Rows]:
        """List, row, score and place in its list of the best, in order."""
        which, row, score = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        order = np.lexsort((row, -score, which))
        which, row, score = which[order], row[order], score[order]
        place = np.arange(len(which)) - np.searchsorted(which, which)
        kept = place < self.depth
        return which[kept], row[kept], score[kept], place[kept]

    def write(self, score: Doubles, row: Rows) -> None:
        """Write the lists."""
        which, rows, scores, place = self._cut()
        score[which, place], row[which, place] = scores, rows
