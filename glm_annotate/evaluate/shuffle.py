"""Sequences in another order that keeps how often each base follows each: a control of composition.

A sequence is a walk over its letters. Another walk over the same steps, from the same first letter
to the same last one, has exactly the same dinucleotides; it exists whenever the last step out of
every letter leads towards the end (Altschul and Erickson, 1985).
"""

from __future__ import annotations

import numpy as np

from glm_annotate.genome import Codes


def shuffle_dinucleotides(codes: Codes, draw: np.random.Generator) -> Codes:
    """Shuffle a sequence (length,); the counts of all neighbouring pairs stay as they are."""
    if codes.size < 4:
        return codes.copy()
    letters = np.unique(codes).tolist()
    follow = {x: codes[1:][codes[:-1] == x] for x in letters}
    last = _last_steps(follow, int(codes[-1]), draw)
    steps = {}
    for letter, after in follow.items():
        rest = after
        if letter in last:
            rest = np.delete(after, np.flatnonzero(after == last[letter])[0])
        rest = draw.permutation(rest)
        ending = [last[letter]] if letter in last else []
        steps[letter] = iter([*rest.tolist(), *ending])
    out = [int(codes[0])]
    for _ in range(codes.size - 1):
        out.append(next(steps[out[-1]]))
    return np.array(out, dtype=codes.dtype)


def _last_steps(follow: dict[int, Codes], end: int, draw: np.random.Generator) -> dict[int, int]:
    """Choose the last step out of every letter but `end`, so that all of them lead to `end`.

    Steps are drawn as often as the sequence has them until they do; the sequence itself shows that
    there is such a choice.
    """
    # A step from a letter to itself never leads on.
    leave = {x: after[after != x] for x, after in follow.items() if x != end}
    others = list(leave)
    while True:
        last = {x: int(leave[x][draw.integers(leave[x].size)]) for x in others}
        if all(_reaches(x, end, last) for x in others):
            return last


def _reaches(letter: int, end: int, last: dict[int, int]) -> bool:
    for _ in range(len(last) + 1):
        if letter == end:
            return True
        letter = last[letter]
    return False
