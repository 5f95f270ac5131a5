"""How the work is cut into pieces that fit into a budget: by shapes and the budget alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

BUDGET = 64 * 2**20
# Blocks of the products, measured: see docs/notes/functions.md.
_MOST_ROWS = 512
_FEW_ROWS = 240  # with fewer, BLAS is faster where the scores lie class by class
_MOST_CLASSES, _MOST_OF_FEW_ROWS, _LEAST_CLASSES = 2048, 512, 64
_LEAST_PRODUCT = 1 << 16  # numbers, where there are few classes
PIECES = 16  # of the classes, for threads
_MOST_TILES = 16
_ROOMS_SHARE = 32  # of the budget, for rooms beyond the first
_ANY_NUMBER = 1 << 20
_WIDENED = 1 << 18  # numbers of a block of weights that are not as BLAS wants them


def blocks(n: int, step: int) -> list[tuple[int, int]]:
    """Where each block of n things starts and stops."""
    return [(a, min(a + step, n)) for a in range(0, n, step)]


@dataclass(frozen=True)
class Layout:
    """How much is worked on at once. No budget changes tile and classes, nor so any score."""

    tile: int  # rows of each product that gives scores
    classes: int  # of each of these products
    rows: int  # whose scores are held: whole tiles, or a part of one
    stripe: int  # classes whose gradients are summed in one pass over the rows
    rooms: int  # threads that have room of their own
    product: int  # numbers of a product in each room
    least: int  # bytes for one row

    @property
    def by_class(self) -> bool:
        """Whether products lie class by class, until they are put in place."""
        return self.tile < _FEW_ROWS


@dataclass(frozen=True)
class Costs:
    """The bytes that a pass takes beyond inputs and gradients."""

    held: int  # numbers of each row and of each class
    sums_class: int  # of each class of a weight's gradient that is rounded in the end
    row: int  # of each row whose scores are held
    tile_row: int  # of each row of a tile
    room: int  # in each room
    room_class: int  # of each class of a product, in each room
    item: int  # a number

    def layout(self, n_rows: int, n_classes: int, budget: int) -> Layout:
        """What fits into the budget."""
        # The tile is one that fits into the usual budget, whatever the budget is.
        usual = max(BUDGET, 2 * self.held)
        tile = max(1, min(n_rows, max(_MOST_ROWS, _LEAST_PRODUCT // n_classes)))
        while tile > 1 and self._fitting(tile, n_classes, usual).rows < tile:
            tile -= max(1, tile // 64)
        tile = max(1, -(-n_rows // max(1, -(-n_rows // tile))))  # no small one at the end
        at = self._fitting(tile, n_classes, budget)
        if budget < at.least:
            raise ValueError(
                f"memory_budget is {budget} bytes, but at least {at.least} bytes are needed: "
                f"{self.row} for one row of {n_classes} scores, and the rest for a block of a "
                "product and some numbers of every row and class"
            )
        rows = max(1, min(at.rows, n_rows, _MOST_TILES * tile))
        return replace(at, rows=rows if rows < tile else rows // tile * tile)

    def _fitting(self, tile: int, n_classes: int, budget: int) -> Layout:
        by_class = tile < _FEW_ROWS
        widest = _WIDENED * self.item // self.room_class if self.room_class else _MOST_CLASSES
        most = min(
            _MOST_OF_FEW_ROWS if by_class else _MOST_CLASSES, widest, -(-n_classes // PIECES)
        )
        classes = min(n_classes, max(_LEAST_CLASSES, -(-most // 64) * 64))
        stripe = min(n_classes, _LEAST_CLASSES) if self.sums_class else n_classes
        # Products lie apart where they are transposed, or are of rows whose scores are not held.
        for apart in (tile * classes,) if by_class else (0, tile * classes):
            room = self.room + classes * self.room_class + apart * self.item
            least = self.held + stripe * self.sums_class + tile * self.tile_row + room + self.row
            left = budget - least
            more = max(left, 0) // _ROOMS_SHARE // room if room else _ANY_NUMBER
            wider = max(left, 0) // 2 // (64 * self.sums_class) * 64 if self.sums_class else 0
            wider = min(wider, n_classes - stripe)
            rows = 1 + (left - more * room - wider * self.sums_class) // self.row
            if rows >= tile:
                break
        return Layout(tile, classes, rows, stripe + wider, 1 + more, apart, least)
