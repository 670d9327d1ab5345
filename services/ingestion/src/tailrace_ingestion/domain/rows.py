"""Valid events on their way into windows: rows of one model, aligned column by column.

Batches wait until the next fold and are then put together: the columns one behind the other, the words of categorical
ones moved to one list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tailrace_ingestion.domain.checks import ABSENT, Column, Floats, Integers, Mask, NumberColumn, WordColumn
from tailrace_ingestion.domain.model import Shape


@dataclass(slots=True)
class Rows:
    """Events of one model, aligned column by column; or what shadows answered, a row for each answer.

    `valid` is false for an event that was refused for a value: what was wrong with it is counted, its values are not
    folded. `arms` tells who answered: `champion/3`, absent for an event that nobody answered.
    """

    shape: Shape
    offsets: Integers
    windows: Floats
    valid: npt.NDArray[np.bool_]
    arms: WordColumn
    columns: dict[str, Column]
    of_shadows: bool = False

    def taken(self, rows: Integers, names: Iterable[str] | None = None) -> Rows:
        """Some of the rows, of all columns or of some."""
        wanted = self.columns if names is None else {name: self.columns[name] for name in names}
        columns = {name: taken(column, rows) for name, column in wanted.items()}
        arms = WordColumn(self.arms.codes[rows], self.arms.words, 0, self.arms.missing[rows], self.arms.unseen[rows])
        return Rows(
            self.shape, self.offsets[rows], self.windows[rows], self.valid[rows], arms, columns, self.of_shadows
        )


def taken(column: Column, rows: Integers) -> Column:
    """Some of a column's rows."""
    if isinstance(column, NumberColumn):
        return NumberColumn(column.values[rows], column.missing[rows], column.out_of_limits[rows])
    codes, missing, unseen = column.codes[rows], column.missing[rows], column.unseen[rows]
    return WordColumn(codes, column.words, column.known, missing, unseen)


def joined(parts: list[Rows]) -> Rows:
    """Rows of several batches as one; all are of one shape."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        shape=parts[0].shape,
        offsets=np.concatenate([part.offsets for part in parts]),
        windows=np.concatenate([part.windows for part in parts]),
        arms=WordColumn(*_one_list([part.arms for part in parts]), *_masks([part.arms for part in parts])),
        of_shadows=parts[0].of_shadows,
        valid=np.concatenate([part.valid for part in parts]),
        columns={name: _joined_column([part.columns[name] for part in parts]) for name in parts[0].columns},
    )


def _joined_column(parts: list[Column]) -> Column:
    missing = np.concatenate([part.missing for part in parts])
    numbers = [part for part in parts if isinstance(part, NumberColumn)]
    if numbers:
        outside = np.concatenate([part.out_of_limits for part in numbers])
        return NumberColumn(np.concatenate([part.values for part in numbers]), missing, outside)
    words = [part for part in parts if isinstance(part, WordColumn)]
    return WordColumn(*_one_list(words), *_masks(words))


def _masks(parts: list[WordColumn]) -> tuple[Mask, Mask]:
    return np.concatenate([part.missing for part in parts]), np.concatenate([part.unseen for part in parts])


def _one_list(parts: list[WordColumn]) -> tuple[Integers, list[str], int]:
    """Codes, words and number of known words of all parts: the known ones are the same, unseen ones follow."""
    words = list(parts[0].words)
    places = {word: at for at, word in enumerate(words)}
    codes = [parts[0].codes]
    for part in parts[1:]:
        for word in part.words[part.known :]:
            if word not in places:
                places[word] = len(words)
                words.append(word)
        moved = np.array([*range(part.known), *(places[word] for word in part.words[part.known :]), ABSENT], np.int64)
        codes.append(moved[part.codes])
    return np.concatenate(codes), words, parts[0].known
