"""Work in two stages: the next piece is prepared while a session runs the one before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

Piece = TypeVar("Piece")
Ready = TypeVar("Ready")


def overlapped(
    pieces: Iterable[Piece],
    prepare: Callable[[Piece], Ready],
    run: Callable[[Ready, int], Ready],
    *,
    sessions: int,
    stop: Callable[[], None],
) -> Iterator[Ready]:
    """Give pieces in order, each prepared here and run in the thread of a session.

    Memory is bounded by the pieces under way: one a session, and one being prepared.

    Args:
        pieces: What there is to do.
        prepare: Makes a piece ready.
        run: Runs a ready piece on the session of a number.
        sessions: How many there are.
        stop: Called where an error or Ctrl-C leaves something running, to end it.
    """
    pending: deque[Future[Ready]] = deque()

    def left(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            stop()

    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(sessions)]
        stack.push(left)
        for number, piece in enumerate(pieces):
            session = number % sessions
            pending.append(pools[session].submit(run, prepare(piece), session))
            if len(pending) > sessions:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
