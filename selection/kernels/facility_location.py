"""Greedy facility location: the rows whose nearest copies cover the pool best.

The value of a set S is the sum over the references i of w_i * max over j in S of s_ij, with s = (1 + cosine) / 2; a
zero vector has similarity 0 to everything. Exact means here: the cosine of float64 arithmetic in one fixed order, s
rounded to a multiple of 2**-40, the rest in integers (weights too, where they are in proportion to whole numbers, see
`scaled`). Sums of integers have no order, so gains that tie in truth tie here, however the rows are ordered, and ties
go to the lowest row; gains never rise, so a bound from an earlier pick stays a bound.

Float32 products only filter. With g and u of `compiled.margin`, the result for unit vectors errs by at most g + 2.1 u
(the unit vectors are rounded too), so s by `margin` = g / 2 + 4 u, which also covers its own rounding and that of what
a reference is covered with. A reference whose similarity lies below what it has by more than that adds nothing to a
gain; the others add at most `margin` each to its error. So a bound on the gain costs one pass over a row of float32
similarities, and only the rows whose bounds come first are worked out exactly, over the few references in doubt.

What a reference is covered with only rises, so a row keeps only the similarities above that: of the rows of highest
bound, within a memory budget (of all of them if they fit). Where these are many, they are compressed to a byte each,
rounded up: an upper bound from then on, by which the row is multiplied again only if its bound comes first, and only
with the references that are still in doubt. The rows of which nothing is kept are multiplied with all references again
when their turn comes. Where the processor multiplies bytes faster, that gives estimates (see `estimates`), and float32
products follow for the few rows whose bounds come first. This changes time, never a pick.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from selection.allocation import as_written
from selection.blocks import chunks, directions, writable
from selection.kernels.compiled import compressed
from selection.kernels.compiled import facility_location as loops
from selection.kernels.compiled.margin import U, product_margin
from selection.kernels.device import facility_location as device
from selection.kernels.estimates import Estimates, worth_it
from selection.kernels.float16 import as_float32
from selection.kernels.neighbor_graph import nearest_neighbours
from selection.kernels.normalize import unit_rows
from selection.kernels.threads import Threads
from selection.kernels.top_k import TILE_ROWS, similarity_to, tiles
from selection.types import Array, DeviceVectors, Doubles, Floats, Mask, PartedVectors, Points, Rows, Vectors

BITS = 40
# Fewest bits of a similarity that whole weights may leave: a unit is then 2e-10.
LEAST_BITS = 32
# Rows multiplied with all references at once: at most, and as many as leave each thread so many similarities, which
# stay near its cache. So many rows are worth the room, up to so many similarities in all.
CHUNK_ROWS = 8192
THREAD_VALUES = 2**20
LEAST_ROWS = 256
CHUNK_VALUES = 2**24
# Rows and references that one thread multiplies before it takes more.
PRODUCT_ROWS, PRODUCT_REFS = 512, 2048
# Rows of a held-out sample measured at once.
SAMPLE_ROWS = 256
# Rows that one thread bounds, or estimates, before it takes more.
ROWS_AT_ONCE = 128
ESTIMATED_AT_ONCE = 256
# A place and a similarity in a list, or as many bytes of compressed ones.
ENTRY_BYTES = 8
# Compressed similarities lie above what was covered at one of so many versions, each twice the one before.
BASES = 34
STEPS = compressed.FIRST * 2.0 ** (np.arange(compressed.STEPS) / 4)
# Rows outside with so many times the highest bound of a row of which something is kept are all multiplied, whatever
# turns up.
DUE = 2
# Where more of the references are in doubt, it is faster to multiply with all, many rows at once.
OPEN_SHARE = 1 / 6
# Rows that show how high the gain of the next pick may be, and rows that are then multiplied at once.
SEEDS, OPEN_ROWS = 64, 2048
# Where other processes read the vectors, they bound rows that have so many products with the references, some seconds
# of work; fewer are not worth the way.
PARTED_PRODUCTS = 2**36
# Rows whose neighbours are looked up at once.
NEIGHBOUR_ROWS = 1024


class Coverage:
    """How well the references are covered, and bounds on what each candidate would add.

    Args:
        vectors: (n, d).
        references: rows to be covered, ascending; all by default.
        weights: (n,) >= 0, what covering a row counts; 1 by default.
        exact_weights: count with whole numbers in proportion to the weights where there are any, see `scaled`.
        taken: rows that cover from the start.
        max_bytes: for the kept similarities.

    Cost: two passes over the vectors; then 2*d operations for each pair of a candidate and a reference that is
    multiplied, all pairs once (in bytes where the processor has an instruction for them) and, where the compressed
    similarities of all rows fit into `max_bytes`, few a second time; and a scan of what is kept for each bound; where
    other processes read the vectors, they multiply more pairs and this one fewer, see `tighten_in_parts`. Memory:
    `max_bytes` at most (compressed similarities take a byte for each that may count and a bit for each reference), 9
    bytes * references * d (20 to begin with), 200 bytes * references, 96 bytes * n, chunks of 64 and 20 MiB or of one
    row. A GPU multiplies somewhat more pairs; for its memory see `device.facility_location`.
    """

    def __init__(
        self,
        vectors: Vectors,
        *,
        references: Rows | None = None,
        weights: Doubles | None = None,
        exact_weights: bool = True,
        taken: Rows,
        max_bytes: int,
    ) -> None:
        n, d = vectors.shape
        self.vectors = vectors
        self.norms, hashes = _norms_and_hashes(vectors)
        self.twin = _twins(vectors, hashes)

        references = np.arange(n, dtype=np.int64) if references is None else references
        references = references[self.norms[references] > 0]
        weights = np.ones(n) if weights is None else weights
        # Weights in bytes are multiples of the largest of their group, so those of a group are to be alike.
        by_weight = np.argsort(weights[references], kind="stable")
        refs = as_float32(vectors.take(references))
        self.refs, references = refs[by_weight], references[by_weight]
        self.weight, self.scale, self.unit = scaled(weights[references], exact=exact_weights)
        self.weight32 = self.weight.astype(np.float32)
        self.ref_norm = self.norms[references]
        # Where a candidate's vector stands among the references, so that it need not be kept twice.
        self.place = np.full(n, -1, np.int64)
        self.place[references] = np.arange(len(references))

        self.margin = np.float32(product_margin(d) / 2 + 4.01 * U)
        self.covered = np.zeros(len(references), np.int64)
        # Coarse similarities up to this cannot be above what a reference is covered with.
        self.low = np.full(len(references), -self.margin, np.float32)
        self.version = 0
        self.upper = self._first_bounds()
        self.state = np.zeros(n, loops.ROW)
        self.state["seen_at"] = -1
        self.exact_at = np.full(n, -1, np.int32)
        self.memo = np.zeros(n, np.int64)
        self.memo_at = np.full(n, -1, np.int32)
        self.memo_at[self.norms == 0] = np.iinfo(np.int32).max

        self.half_unit_refs = unit_rows(self.refs, self.ref_norm) * np.float32(0.5)
        self.threads = Threads()
        self.blas = ThreadpoolController()
        self.device: device.Similarities | None = None
        if isinstance(vectors, DeviceVectors):
            self.device = device.Similarities(vectors, references, self.weight32, self.unit)
            self.chunk = self.device.chunk
        else:
            self.chunk = _chunk(len(references), self.threads.count)
        self.max_bytes = max_bytes
        self._cover(taken)
        self.before = float((self.weight * self.covered).sum() / self.unit * self.scale)

    def greedy(self, among: Rows, budget: int) -> tuple[Rows, Doubles]:
        """The next picks among some rows that were not picked yet, and their gains; call again for more."""
        kept = _Kept(self, among)
        picked, gains = np.empty(budget, np.int64), np.empty(budget, np.int64)
        count, row, x = 0, -1, np.empty(self.refs.shape[1], np.float32)
        while count < budget:
            first = kept.outside.first()
            count, kept.size, self.version, row, many = loops.greedy(
                kept.arrays, self.upper, kept.references, kept.heap, kept.size, self.place, self.norms, self.twin,
                self.exact_at, self.memo, self.memo_at, self.version,
                self.upper[first] if first >= 0 else -1, first, x, row, picked, gains, count, budget,
            )  # fmt: skip
            if row >= 0:
                x = as_float32(self.vectors.take(np.array([row])))[0]
            elif many:
                kept.look_at_many()
            elif count < budget:
                kept.fill()
        return picked, gains / self.unit * self.scale

    def similarities(self, rows: Rows, out: Floats | None = None) -> tuple[Floats, Floats]:
        """(rows, references) float32 similarities, and the rows' vectors. Those of a zero vector mean nothing: its
        bound is 0.
        """
        r = len(self.refs)
        similar = np.empty((len(rows), r), np.float32) if out is None else out
        xs = np.empty((len(rows), self.refs.shape[1]), np.float32)
        if self.device is not None:
            self.device.write(rows, similar)
            xs[:] = self.vectors.take(rows)
            return similar, xs
        unit = np.empty_like(xs)

        def read(start: int, stop: int) -> None:
            xs[start:stop], unit[start:stop] = self.with_units(rows[start:stop])

        def multiply(start: int, stop: int) -> None:
            for tile in range(start, stop):
                first, ref = tile // tiles_of_refs * PRODUCT_ROWS, tile % tiles_of_refs * PRODUCT_REFS
                part = similar[first : first + PRODUCT_ROWS, ref : ref + PRODUCT_REFS]
                np.matmul(unit[first : first + PRODUCT_ROWS], self.half_unit_refs[ref : ref + PRODUCT_REFS].T, out=part)
                part += np.float32(0.5)

        self.threads.run(read, len(rows), ROWS_AT_ONCE)
        tiles_of_refs = -(-r // PRODUCT_REFS)
        with self.blas.limit(limits=1):  # threads of BLAS would wait for work by spinning
            self.threads.run(multiply, -(-len(rows) // PRODUCT_ROWS) * tiles_of_refs, 1)
        return similar, xs

    def with_units(self, rows: Rows) -> tuple[Floats, Floats]:
        """(rows, d) float32 vectors, and the same at unit length."""
        xs = as_float32(self.vectors.take(rows))
        return xs, unit_rows(xs, self.norms[rows])

    def bound(self, rows: Rows, similar: Floats) -> Array:
        """Lower the bounds of some rows to what their similarities say; (rows,) how many of these may add to a gain."""
        above = np.empty(len(rows), np.int32)
        task = partial(loops.measure, similar, rows, self.upper, self.low, self.weight32, self.unit, above)
        self.threads.run(task, len(rows), ROWS_AT_ONCE)
        self._see(rows, loops.HERE)
        return above

    def tighten(self, similarities: device.Similarities, left: Rows) -> None:
        """Bring the bounds of the first of some rows up to date on the device: fewer rows need to come to the host."""
        rows = left[: similarities.bounded]
        rows = rows[~self.measured(rows) & (self.upper[rows] > 0)]
        self.upper[rows] = np.minimum(self.upper[rows], similarities.bounds(rows, self.low))
        self._see(rows)

    def _see(self, rows: Rows, where: int = 1) -> None:
        self.state["seen_at"][rows], self.state["measured"][rows] = self.version, where

    def measured(self, rows: Rows) -> Mask:
        """(rows,) whether their bounds are of this version, and from float32 similarities."""
        return np.asarray((self.state["seen_at"][rows] == self.version) & (self.state["measured"][rows] != 0))

    def tighten_in_parts(self, vectors: PartedVectors, left: Rows, estimates: Estimates | None) -> bool:
        """Bring the bounds of these rows up to date where their vectors are, if that is worth the way; whether it is.

        The references go to each part, also in bytes; of each row its place, and a bound back.
        """
        left = left[~self.measured(left) & (self.upper[left] > 0)]
        if not self.covered.any() or len(left) * self.refs.size < PARTED_PRODUCTS:
            return False  # where nothing is covered, the first bounds are close
        stale = np.zeros(len(self.upper), bool)
        stale[left] = True

        def places_of(part: Rows) -> tuple[Rows] | None:
            places = np.flatnonzero(stale[part])
            return (places,) if len(places) else None

        covered = self.low, self.weight32, self.unit
        work = partial(_bounds_of_part, self.half_unit_refs, estimates, *covered, self.chunk)
        for part, bounds in vectors.map_parts(work, places_of):
            rows = part[stale[part]]
            self.upper[rows] = np.minimum(self.upper[rows], bounds)
            self._see(rows)
        return True

    def _first_bounds(self) -> Rows:
        """(n,) bounds on the gain over nothing: its closed form (W + x . sum_i w_i x_i) / 2, and a little more."""
        n = len(self.norms)
        total = float(self.weight.sum())
        direction = np.zeros(self.refs.shape[1])
        for start in range(0, len(self.refs), TILE_ROWS):
            part = slice(start, start + TILE_ROWS)
            direction += (self.weight[part] / self.ref_norm[part]) @ self.refs[part].astype(np.float64)
        projection = similarity_to(self.vectors, direction)
        cosine = np.divide(projection, self.norms, out=np.zeros(n), where=self.norms > 0)
        bound = np.ceil(((total + cosine) / 2 + 1e-9 * total) * self.unit).astype(np.int64)
        bound[self.norms == 0] = 0
        return bound

    def _cover(self, taken: Rows) -> None:
        taken = taken[self.norms[taken] > 0]
        for rows in chunks(taken, self.chunk):
            similar, xs = self.similarities(rows)
            loops.cover(
                similar, xs, self.norms[rows], self.refs, self.ref_norm, self.covered, self.low, self.margin, self.unit
            )
        covered_twins = np.unique(self.twin[taken])
        self.memo_at[covered_twins] = np.iinfo(np.int32).max


class _Outside:
    """Rows of which nothing is kept, by descending bound, then ascending row.

    Args:
        upper: (n,) the bounds. Those of rows in here stay as they are, unless `again` is called.
    """

    def __init__(self, rows: Rows, upper: Rows) -> None:
        self.upper = upper
        self.rows = rows[:0]
        self.added, self.highest = [rows], -1
        self.again()

    def first(self) -> int:
        """The row that comes first; -1 if there is none."""
        if self.added and (len(self.rows) == 0 or self.upper[self.rows[0]] <= self.highest):
            self.again()
        return int(self.rows[0]) if len(self.rows) else -1

    def count_above(self, bound: int) -> int:
        """How many of the rows that are in order have higher bounds."""
        if not len(self.rows) or self.upper[self.rows[0]] <= bound:
            return 0
        return int(np.searchsorted(-self.upper[self.rows], -bound))

    def take(self, count: int) -> Rows:
        """Take out the first rows, or some of nearly as high bounds; ascending."""
        rows, self.rows = self.rows[:count], self.rows[count:]
        return np.sort(rows)

    def add(self, rows: Rows) -> None:
        """Put in rows; they are put in order once they come first."""
        if len(rows):
            self.added.append(rows)
            self.highest = max(self.highest, int(self.upper[rows].max()))

    def count(self) -> int:
        """How many there are."""
        return len(self.rows) + sum(map(len, self.added))

    def all(self) -> Rows:
        """In no order."""
        return np.concatenate([self.rows, *self.added])

    def again(self) -> None:
        """Put all rows in order."""
        rows = np.sort(self.all())
        self.rows = rows[np.argsort(-self.upper[rows], kind="stable")]
        self.added, self.highest = [], -1


class _Kept:
    """What is kept of the rows of highest bound, to bring their bounds up to date with; a heap of these.

    Of a row that may still add to few references, these with its similarities; of others they are compressed (see
    `compiled.facility_location`). What a reference is covered with only rises, so what is left out of either never
    counts again: a row is multiplied with all references again only if what was kept of it had to go for lack of
    memory.
    """

    def __init__(self, coverage: Coverage, among: Rows) -> None:
        r = len(coverage.refs)
        self.coverage = coverage
        self.outside = _Outside(among, coverage.upper)
        self.bits = compressed.groups(r)
        self.entries = max(compressed.size_of(r, r), r, min(len(among) * r, coverage.max_bytes // ENTRY_BYTES))
        self.arrays = _nothing_kept(coverage.state, r, self.entries)
        self.base_versions = np.empty(0, np.int64)
        # A list that is longer than the bits is not worth its room, unless there is room for as long ones of all.
        self.longest = max(self.bits, self.entries // max(1, len(among)))
        self.used, self.compacted_at = 0, coverage.version
        # How many rows nothing is kept of, those at work left out.
        self.to_come = 0
        # What part of the references was in doubt for the rows that were multiplied last.
        self.open_share = 0.0
        self.heap, self.size = np.empty(len(among), np.int64), 0
        # What had to go was of bounds up to this, at that version: others of such bounds would go at once.
        self.floor, self.floor_version = -1, 0
        self.references = _references(coverage, self.bits)
        pays = coverage.device is None and worth_it(len(among), r, coverage.refs.shape[1])
        self.estimates = Estimates(coverage.half_unit_refs * np.float32(2), coverage.weight32) if pays else None
        self.similar = np.empty((min(coverage.chunk, len(among)), r), np.float32)
        self.chunk = min(CHUNK_ROWS, max(1, CHUNK_VALUES // max(1, r))) if pays else coverage.chunk
        self.packed = np.empty((min(self.chunk, len(among)) if pays else 0, compressed.most_entries(r)), np.uint64)

    def fill(self) -> None:
        """Multiply the first rows from outside."""
        coverage = self.coverage
        if coverage.device is not None:
            coverage.tighten(coverage.device, self.outside.rows)
            self.outside.again()
        elif isinstance(coverage.vectors, PartedVectors) and coverage.tighten_in_parts(
            coverage.vectors, self.outside.all(), self.estimates
        ):
            self.outside.again()
        first = self.outside.first()
        taken = self.outside.take(self._how_many(first))
        self.to_come = self.outside.count() + len(taken)
        for rows in chunks(taken, self.chunk):
            self.to_come -= len(rows)
            self._multiply(rows, first)

    def _how_many(self, first: int) -> int:
        """How many rows from outside to multiply: of those whose bounds are close already, no more than have to be."""
        coverage, state = self.coverage, self.coverage.state[first]
        seen = state["seen_at"] == coverage.version
        if not coverage.covered.any() or (seen and state["measured"] == loops.HERE):
            return 1
        if seen:
            return len(self.similar)
        due = self.outside.count_above(DUE * int(coverage.upper[self.heap[0]])) if self.size else 0
        return max(due, self.chunk)

    def _multiply(self, rows: Rows, first: int) -> None:
        """Multiply some rows, and keep something of those of high bounds."""
        coverage, upper = self.coverage, self.coverage.upper
        base = self._base()
        # Estimates say no more than what is known of rows that were seen already, and do not pay for a single row.
        again = len(rows) == 1 or (coverage.state["seen_at"][rows] == coverage.version).any()
        estimates = None if again else self.estimates
        if estimates is None and len(rows) > len(self.similar):
            for part in chunks(rows, len(self.similar)):
                self._multiply(part, first)
            return
        if estimates is not None:
            self._estimate(estimates, rows, base)
        else:
            similar, _ = coverage.similarities(rows, self.similar[: len(rows)])
            above = coverage.bound(rows, similar)
            coverage.state["length"][rows] = np.where(above <= self.longest, above, -1)
            coverage.state["size"][rows] = self.bits - (-above // ENTRY_BYTES)
        # The first must not be passed over: those above it may turn out to be worth less.
        wanted = (upper[rows] >= self.floor) | (rows == first) | (self.floor_version < coverage.version)
        if self.used + int(self._units(rows[wanted]).sum()) > self.entries:
            wanted &= self._make_room(rows, wanted)
        chosen = np.flatnonzero(wanted)
        units = self._units(rows[chosen])
        coverage.state["start"][rows[chosen]] = self.used + np.cumsum(units) - units
        self.used += int(units.sum())
        if estimates is not None:
            task = partial(loops.copy_kept, self.packed, chosen, rows, self.arrays)
        else:
            task = partial(loops.write_kept, similar, chosen, rows, base, self.arrays, coverage.low)
        coverage.threads.run(task, len(chosen), ROWS_AT_ONCE)
        self._know_scales(rows[chosen])
        self.size = loops.push_all(self.heap, self.size, rows[chosen], upper)
        self.outside.add(rows[~wanted])

    def _estimate(self, estimates: Estimates, rows: Rows, base: int) -> None:
        """Lower the bounds of some rows to what products of bytes say, and compress the similarities to `packed`."""
        coverage = self.coverage
        codes = self.packed.view(np.uint8)

        def task(start: int, stop: int) -> None:
            in_bytes, error, doubt = estimates.quantize(coverage.with_units(rows[start:stop])[1])
            loops.estimate(
                in_bytes, estimates.references(), rows, start, error, doubt, self.arrays, base, coverage.upper,
                coverage.version, self.references, self.packed, codes,
            )  # fmt: skip

        with coverage.blas.limit(limits=1):
            coverage.threads.run(task, len(rows), ESTIMATED_AT_ONCE)

    def _know_scales(self, rows: Rows) -> None:
        """Write the limits of the scales that these rows are the first to have."""
        arrays, low = self.arrays, self.coverage.low
        scales = np.unique(-1 - arrays.state["length"][rows])
        for scale in np.setdiff1d(scales[scales >= 0], arrays.in_use).tolist():
            place = len(arrays.in_use)
            if place == len(arrays.limits):
                arrays = arrays._replace(limits=np.concatenate([arrays.limits, np.empty_like(arrays.limits)]))
            arrays.limit_row[scale] = place
            base, step = arrays.bases[scale // compressed.STEPS], arrays.steps[scale % compressed.STEPS]
            loops.fill_limits(arrays.limits[place], low, base, step)
            arrays = arrays._replace(in_use=np.append(arrays.in_use, np.int32(scale)))
        self.arrays = arrays

    def look_at_many(self) -> None:
        """Bring the bounds of all rows that may well be the next pick up to date.

        Gains of this version are near the bounds of rows that were multiplied: those of lower bounds can wait.
        """
        upper, seeds = self.coverage.upper, np.arange(min(SEEDS, self.size))
        self.open_share = 0.0
        goal = self._multiply_open(self._looked_at(self.heap[seeds]), 0)
        loops.sift_all(self.heap, self.size, seeds, upper)
        places = loops.places_above(self.heap, self.size, upper, goal)
        rows = self._looked_at(self.heap[places])
        rows = rows[upper[rows] >= goal]
        rows = rows[np.argsort(-upper[rows], kind="stable")]
        for part in chunks(rows, OPEN_ROWS):
            if upper[part[0]] < goal:
                break
            goal = self._multiply_open(part[upper[part] >= goal], goal)
        loops.sift_all(self.heap, self.size, places, upper)

    def _looked_at(self, rows: Rows) -> Rows:
        """The rows, once their bounds are up to date with what is kept of them."""
        coverage = self.coverage
        stale = rows[coverage.state["seen_at"][rows] < coverage.version]
        task = partial(loops.look, stale, self.arrays, coverage.upper, coverage.version, self.references)
        coverage.threads.run(task, len(stale), ROWS_AT_ONCE)
        return rows

    def _multiply_open(self, rows: Rows, goal: int) -> int:
        """Multiply those rows of which only rough similarities are kept; the highest bound of all, or `goal`."""
        coverage = self.coverage
        rough = np.sort(rows[(coverage.state["rough"][rows] != 0) & ~coverage.measured(rows)])
        if self.open_share > OPEN_SHARE:
            for part in chunks(rough, coverage.chunk):
                self._multiply_in_place(part)
        else:
            self._multiply_singly(rough)
        return int(coverage.upper[rows].max(initial=goal))

    def _multiply_singly(self, rows: Rows) -> None:
        """Multiply each row with the references that are in doubt for it."""
        coverage = self.coverage
        products: list[int] = []

        def task(start: int, stop: int) -> None:
            part = rows[start:stop]
            units = coverage.with_units(part)[1]
            products.append(
                loops.multiply_open(
                    part, units, coverage.half_unit_refs, self.arrays, coverage.upper, coverage.version, self.references
                )
            )

        coverage.threads.run(task, len(rows), ROWS_AT_ONCE)
        self.open_share = sum(products) / max(1, len(rows) * len(coverage.refs))

    def _multiply_in_place(self, rows: Rows) -> None:
        """Multiply the rows with all references; lists that are no longer take the place of what is kept."""
        coverage = self.coverage
        similar, _ = coverage.similarities(rows, self.similar[: len(rows)])
        above = coverage.bound(rows, similar)
        chosen = np.flatnonzero(above <= self._units(rows))
        coverage.state["length"][rows[chosen]] = above[chosen]
        task = partial(loops.write_kept, similar, chosen, rows, 0, self.arrays, coverage.low)
        coverage.threads.run(task, len(chosen), ROWS_AT_ONCE)

    def _base(self) -> int:
        """The base of similarities compressed now: what the references are covered with, or were not long ago."""
        version, known = self.coverage.version, len(self.base_versions)
        if not known or version >= max(1, 2 * self.base_versions[-1]):
            self.arrays.bases[known] = self.coverage.low
            self.base_versions = np.append(self.base_versions, version)
        return len(self.base_versions) - 1

    def _units(self, rows: Rows) -> Rows:
        """(rows,) the entries that what is kept of them takes."""
        length, size = self.coverage.state["length"][rows], self.coverage.state["size"][rows]
        return np.where(length < 0, size, length).astype(np.int64)

    def _make_room(self, rows: Rows, wanted: Mask) -> Mask:
        """Make room for what to keep of the wanted ones among some rows; which of the rows may have it.

        If there is not enough, what is kept of rows of lowest bounds goes, and room is left for all others, a quarter
        at most.
        """
        live, units = self.heap[: self.size].copy(), int(self._units(rows[wanted]).sum())
        if self.compacted_at < self.coverage.version or units + int(self._units(live).sum()) <= self.entries:
            self._compact(live)
            if self.used + units <= self.entries:
                return wanted
        upper, competing = self.coverage.upper, np.sort(np.concatenate([self._looked_at(live), rows[wanted]]))
        order = np.argsort(-upper[competing], kind="stable")  # of equal bounds the lowest row, as it is picked
        ends = np.cumsum(self._units(competing[order]))
        others = int(ends[-1]) // len(competing) * self.to_come
        stays = ends <= self.entries - min(self.entries // 4, others)
        stays[0] = True  # the row that is due; one always fits
        gone, staying = competing[order[~stays]], competing[order[stays]]
        self.floor, self.floor_version = int(upper[gone].max(initial=-1)), self.coverage.version
        may = np.isin(rows, staying)
        self.outside.add(gone[~np.isin(gone, rows)])
        self._compact(live[np.isin(live, staying)])
        return may

    def _compact(self, live: Rows) -> None:
        """Keep what is kept of these rows alone, lists shortened."""
        in_place = live[np.argsort(self.coverage.state["start"][live])]
        self.used, self.compacted_at = loops.compact(in_place, self.arrays, self.coverage.low), self.coverage.version
        self.size = len(live)
        self.heap[: self.size] = live
        loops.heapify(self.heap, self.size, self.coverage.upper)


def _nothing_kept(state: Array, r: int, entries: int) -> loops.Kept:
    """The arrays for what is kept of rows, each of which may be similar to r references; their `loops.ROW`."""
    room = np.empty(entries + compressed.GROUP // ENTRY_BYTES, np.uint64)  # a group of bytes may be read beyond the end
    return loops.Kept(
        room=room,
        codes=room.view(np.uint8),
        words=room.view(np.int32),
        numbers=room.view(np.float32),
        state=state,
        limit_row=np.empty(BASES * compressed.STEPS, np.int32),
        limits=np.empty((8, compressed.groups(r) * compressed.GROUP), np.uint8),
        in_use=np.empty(0, np.int32),
        bases=np.empty((BASES, r), np.float32),
        steps=STEPS,
    )


def _references(coverage: Coverage, groups: int) -> loops.References:
    """The references as the compiled loops take them."""
    weights = np.zeros(groups * compressed.GROUP)
    weights[: len(coverage.weight)] = coverage.weight
    units = weights.reshape(groups, compressed.GROUP).max(axis=1, initial=0.0) / compressed.WEIGHT * (1 + 1e-6)
    whole = np.ceil(
        np.divide(weights, np.repeat(units, compressed.GROUP), out=np.zeros_like(weights), where=weights > 0)
    )
    return loops.References(
        vectors=coverage.refs,
        norms=coverage.ref_norm,
        weight=coverage.weight,
        weight32=coverage.weight32,
        weight8=whole.astype(np.int8),
        weight_units=units,
        covered=coverage.covered,
        low=coverage.low,
        margin=coverage.margin,
        unit=coverage.unit,
    )


def _chunk(references: int, threads: int) -> int:
    """How many rows to multiply with so many references at once."""
    r = max(1, references)
    return max(1, min(CHUNK_ROWS, CHUNK_VALUES // r, max(LEAST_ROWS, threads * THREAD_VALUES // r)))


def scaled(weights: Doubles, *, exact: bool = True) -> tuple[Doubles, float, float]:
    """Weights to count with, what to multiply a sum of theirs with, and how many units a similarity of 1 has.

    The sum of all weights, in units, fits into 62 bits. Exact: if the weights, as decimals, are in proportion to whole
    numbers that leave a similarity LEAST_BITS bits, these are what is counted with; then gains that tie in truth tie.
    Otherwise the largest weight is 1, and each product with a similarity is rounded down to a unit.

    >>> scaled(np.array([0.3, 0.0, 0.1]))[0]
    array([3., 0., 1.])
    """
    whole = _whole_numbers(weights) if exact else None
    if whole is not None:
        return whole, float(weights.max() / whole.max()), 2.0 ** min(BITS, 62 - int(whole.sum()).bit_length())
    scale = float(weights.max(initial=0.0)) or 1.0
    return weights / scale, scale, 2.0 ** min(BITS, 62 - len(weights).bit_length())


def _whole_numbers(weights: Doubles) -> Doubles | None:
    """The smallest whole numbers in proportion to the weights; None if there are none, or they are too large."""
    values, which = np.unique(weights, return_inverse=True)
    fractions = [as_written(value) for value in values.tolist() if math.isfinite(value)]
    denominator = 1
    for fraction in fractions:
        denominator = math.lcm(denominator, fraction.denominator)
        if denominator * values[-1] >= 2.0 ** (62 - LEAST_BITS):
            return None
    numbers = [int(fraction * denominator) for fraction in fractions]
    divisor = math.gcd(*numbers)
    if not divisor or not np.array_equal([number / denominator for number in numbers], values):
        return None
    whole = np.array(numbers, np.float64)[which] / divisor
    return whole if whole.sum() < 2.0 ** (62 - LEAST_BITS) else None


def greedy_lists(
    starts: Rows,
    refs: Rows,
    similarity: Array,
    among: Rows,
    budget: int,
    *,
    weights: Doubles,
    taken: Rows,
    exact_weights: bool = True,
) -> tuple[Rows, Doubles, float]:
    """Lazy greedy where each candidate can cover only the references of its list, by similarities that are given.

    Args:
        starts: (n + 1,) candidate j covers refs[starts[j]:starts[j+1]].
        refs: (edges,) int64 in 0..n-1.
        similarity: (edges,) float64 in 0..1; rounded to multiples of 2**-40.
        among: candidates.
        budget: 0 .. len(among).
        weights: (n,) >= 0.
        taken: rows that cover from the start.
        exact_weights: see `scaled`.

    Returns:
        rows in pick order, (b,) what each added to the value, and the value before the first.

    Cost: a scan of a list for each look at a candidate. Memory: 8 bytes an edge beside the arguments.
    """
    n = len(starts) - 1
    weight, scale, unit = scaled(weights, exact=exact_weights)
    edges = np.rint(np.asarray(similarity, np.float64) * unit).astype(np.int64)
    covered = np.zeros(n, np.int64)
    for j in taken.tolist():
        loops.gain_of_list(refs[starts[j] : starts[j + 1]], edges[starts[j] : starts[j + 1]], weight, covered, True)
    before = float((weight * covered).sum() / unit * scale)
    upper = np.full(n, np.iinfo(np.int64).max)
    rows, gains = np.empty(budget, np.int64), np.empty(budget, np.int64)
    loops.greedy_lists(starts, refs, edges, weight, covered, among.copy(), upper, budget, rows, gains)
    return rows, gains / unit * scale, before


def neighbour_lists(vectors: Vectors, count: int, *, count_itself: bool = False) -> tuple[Rows, Rows, Doubles]:
    """Which rows each row can cover: those that have it among their `count` nearest others by cosine, and itself.

    Args:
        vectors: (n, d).
        count: >= 1.
        count_itself: search the `count` rows of highest inner product, which a row itself may be one of.

    Returns:
        starts (n + 1,), refs (edges,) ascending within a list, similarity (edges,): see `greedy_lists`.

    Cost: a search for n queries, n * count exact products. Memory: 32 bytes * n * count, vectors of NEIGHBOUR_ROWS *
    count rows.
    """
    n = vectors.shape[0]
    count = min(count, n if count_itself else n - 1)
    norms = np.zeros(n)
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        loops.norms_of(tile, rows, norms)
    neighbours = np.empty((n, count + 1), np.int64)
    similarity = np.empty((n, count + 1))
    graph = None if count_itself else nearest_neighbours(vectors, count)
    for start in range(0, n, NEIGHBOUR_ROWS):
        rows = np.arange(start, min(start + NEIGHBOUR_ROWS, n), dtype=np.int64)
        xs = as_float32(vectors.take(rows))
        near = vectors.nearest(xs, count)[1] if graph is None else graph[rows]
        near = np.where(near == rows[:, None], -1, near)
        near = np.concatenate([near, rows[:, None]], axis=1)
        others, which = np.unique(near, return_inverse=True)
        ys = as_float32(vectors.take(np.maximum(others, 0)))
        which = np.where(near < 0, -1, which.reshape(near.shape))
        neighbours[rows] = near
        similarity[rows] = loops.exact_pairs(xs, norms[rows], ys, norms[np.maximum(others, 0)], which, 2.0**BITS)
    row, place = np.nonzero(similarity > 0)
    by = neighbours[row, place]
    order = np.argsort(by, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(by, minlength=n))]).astype(np.int64)
    return starts, row[order].astype(np.int64), similarity[row, place][order]


def mean_similarity_after(vectors: Vectors, sample: Rows, picks: Rows, *, weights: Doubles, taken: Rows) -> Doubles:
    """(b,) the weighted mean, over the rows of a sample, of their similarity to the nearest of the first 1, 2, .. b
    picks.

    Args:
        vectors: (n, d).
        sample: rows, at least one of a weight above 0.
        picks: rows in pick order.
        weights: (n,) >= 0.
        taken: rows that cover from the start.

    Cost: 2 * sample * (picks + taken) * d operations in float64; the vectors of these rows, a block of similarities.
    """
    total = np.zeros(len(picks))
    centres = directions(vectors, np.concatenate([taken, picks]))
    for rows in chunks(sample, SAMPLE_ROWS):
        xs = directions(vectors, rows)
        similar = np.clip(0.5 + 0.5 * (xs @ centres.T), 0.0, 1.0)
        similar[~xs.any(axis=1)] = 0
        similar[:, ~centres.any(axis=1)] = 0
        nearest = np.maximum.accumulate(similar, axis=1)[:, len(taken) :]
        total += weights[rows] @ nearest
    return np.asarray(total / weights[sample].sum())


def _norms_and_hashes(vectors: Points) -> tuple[Doubles, Rows]:
    """(n,) lengths, and hashes that are equal for equal vectors."""
    if isinstance(vectors, DeviceVectors):
        return device.norms_and_hashes(vectors)
    norms, hashes = np.zeros(vectors.shape[0]), np.zeros(vectors.shape[0], np.uint64)
    if isinstance(vectors, PartedVectors):
        for rows, (norms_of_part, hashes_of_part) in vectors.map_parts(_norms_and_hashes):
            norms[rows], hashes[rows] = norms_of_part, hashes_of_part.view(np.uint64)
        return norms, hashes.view(np.int64)
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        loops.norms_of(tile, rows, norms)
        loops.hashes_of(tile, rows, hashes)
    return norms, hashes.view(np.int64)


def _bounds_of_part(
    half_unit_refs: Floats,
    estimates: Estimates | None,
    low: Floats,
    weight32: Floats,
    unit: float,
    chunk: int,
    points: Points,
    rows: Rows,
) -> Rows:
    """(rows,) no less than what each row of a part would add; from estimates if this processor multiplies bytes."""
    low, weight32 = writable(low), writable(weight32)
    bounds = np.full(len(rows), np.iinfo(np.int64).max)
    above = np.empty(chunk, np.int32)
    for places in chunks(np.arange(len(rows)), chunk):
        units = unit_rows(points.take(rows[places]))
        if estimates is not None and estimates.available:
            in_bytes, error, doubt = estimates.quantize(units)
            references = estimates.references()
            loops.measure_estimates(in_bytes, references, error, doubt, bounds[places[0] :], low, weight32, unit)
            continue
        similar = units @ half_unit_refs.T
        similar += np.float32(0.5)
        loops.measure(similar, places, bounds, low, weight32, unit, above, 0, len(places))
    return bounds


def _twins(vectors: Vectors, hashes: Rows) -> Rows:
    """(n,) the lowest row with the same vector: what is known of one is known of all."""
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    twin = first[which].astype(np.int64)
    later = np.flatnonzero(twin != np.arange(len(twin)))
    for rows in chunks(later, TILE_ROWS):
        differs = (vectors.take(rows) != vectors.take(twin[rows])).any(axis=1)  # a hash may collide
        twin[rows[differs]] = rows[differs]
    return twin
