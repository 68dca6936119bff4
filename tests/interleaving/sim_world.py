"""A world in which everything that could happen at the same time happens in an order that a seed decides.

Time is virtual. Code under test runs in *fibers* that hold still at each I/O for a random while, so that any other fiber may run,
or their process die, between any two steps. Synchronous code runs in greenlets, coroutines are driven by hand; both hold still in
`World.io` or `World.aio`. One seed is one run, the same each time.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import greenlet

T0 = 1_700_000_000.0


class Crashed(BaseException):
    """The process of this fiber died. Not an `Exception`: nothing in the code under test may catch it."""


class Violation(AssertionError):
    """A rule did not hold."""


class Process:
    """What dies as a whole, and may hold still as a whole."""

    __slots__ = ("died_at", "name", "stalled_until", "stalls_at")

    def __init__(self, name: str) -> None:
        self.name = name
        self.died_at: float | None = None
        self.stalls_at = 0.0
        self.stalled_until = 0.0

    @property
    def is_dead(self) -> bool:
        return self.died_at is not None


class World:
    """The clock, the dice, and what happens next."""

    def __init__(self, seed: int, *, crash_share: float, slow_share: float = 0.08) -> None:
        self.random = random.Random(seed)
        self.now = T0
        self.crash_share = crash_share
        self.slow_share = slow_share
        self.crashes = 0
        self.crash: Callable[[Process], None] = self.kill
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._main = greenlet.getcurrent()

    # --- time ---

    def clock(self) -> float:
        return self.now

    def at(self, moment: float, call: Callable[..., None], *args: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, (max(moment, self.now), self._number, call, args))

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now + delay, call, *args)

    def run(self, until: float) -> None:
        """Let everything happen up to this moment."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, call, args = heapq.heappop(heap)
            self.steps += 1
            call(*args)
        self.now = until

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def latency(self) -> float:
        """How long an I/O takes: mostly a moment, sometimes long enough for anything to happen meanwhile."""
        dice = self.random.random()
        if dice < self.slow_share:
            return self.random.uniform(0.2, 4.0)
        return 0.001 + 0.05 * dice

    # --- processes ---

    def kill(self, process: Process) -> None:
        """The process dies: nothing of it goes on."""
        if process.died_at is None:
            process.died_at = self.now
            self.crashes += 1

    def _may_crash(self, process: Process) -> None:
        if process.died_at is not None:
            raise Crashed(process.name)
        if self.crash_share and self.random.random() < self.crash_share:
            self.crash(process)
            raise Crashed(process.name)

    # --- synchronous code ---

    def start(self, process: Process, work: Callable[[], None], done: Callable[[bool], None] | None = None) -> None:
        """Run work in a fiber, from now on; `done` hears whether it ended or crashed."""

        def body() -> None:
            ended = True
            try:
                work()
            except Crashed:
                ended = False
            if done is not None:
                done(ended)

        fiber = _Fiber(body, self._main)
        fiber.process = process
        fiber.switch()

    def io(self) -> None:
        """Hold still: others run now. Called by fakes before they do what they do."""
        fiber = greenlet.getcurrent()
        if fiber is self._main:
            return
        process = fiber.process
        self._may_crash(process)
        self.after(self.latency(), fiber.switch)
        self._main.switch()
        if process.died_at is not None:
            raise Crashed(process.name)

    # --- coroutines ---

    @types.coroutine
    def aio(self, process: Process) -> Generator[Any, None, None]:
        """Hold still, in a coroutine."""
        self._may_crash(process)
        yield self.latency()
        if process.died_at is not None:
            raise Crashed(process.name)


class _Fiber(greenlet.greenlet):
    process: Process


class Task:
    """A coroutine of a process, driven step by step; as much of `asyncio.Task` as the code under test uses."""

    __slots__ = ("_callbacks", "_coroutine", "_error", "_is_done", "_process", "_world")

    def __init__(self, world: World, process: Process, coroutine: Coroutine[Any, None, None]) -> None:
        self._world = world
        self._process = process
        self._coroutine = coroutine
        self._callbacks: list[Callable[[Any], None]] = []
        self._error: BaseException | None = None
        self._is_done = False
        world.at(world.now, self._step)

    def _step(self, _: Any = None) -> None:
        process, world = self._process, self._world
        if self._is_done:
            return
        if process.died_at is not None:
            self.close()
            return
        if process.stalled_until > world.now:
            world.at(process.stalled_until, self._step)
            return
        try:
            waits_for = self._coroutine.send(None)
        except StopIteration:
            self._end(None)
        except Crashed:
            self.close()
        except Exception as error:
            self._end(error)
        else:
            if type(waits_for) is float:
                world.after(waits_for, self._step)
            else:  # a future, of `asyncio.sleep`
                waits_for._asyncio_future_blocking = False
                waits_for.add_done_callback(self._step)

    def _end(self, error: Exception | None) -> None:
        self._is_done, self._error = True, error
        for callback in self._callbacks:
            callback(self)
        if error is not None:
            raise error

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return False

    def exception(self) -> BaseException | None:
        return None  # an error ends the run, in `_end`: nothing is left to be logged

    def close(self) -> None:
        """Its process died, or the run is over. A coroutine that was handed to this one and not begun ends with it."""
        self._is_done = True
        frame = self._coroutine.cr_frame
        handed = [] if frame is None else [value for value in frame.f_locals.values() if asyncio.iscoroutine(value)]
        self._coroutine.close()
        for coroutine in handed:
            coroutine.close()


class _Handle:
    """What `call_later` returns."""

    __slots__ = ("is_cancelled",)

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """As much of an event loop as the code under test uses: virtual time, and the tasks of one process."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self.tasks: list[Task] = []

    def time(self) -> float:
        return self._world.now

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> Any:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def create_task(self, coroutine: Coroutine[Any, None, None]) -> Task:
        task = Task(self._world, self._process, coroutine)
        self.tasks.append(task)
        if len(self.tasks) > 200:
            self.tasks = [task for task in self.tasks if not task._is_done]
        return task

    def close(self) -> None:
        """Nothing goes on."""
        for task in self.tasks:
            task.close()

    def call_soon(self, call: Callable[..., None], *args: Any, context: Any = None) -> _Handle:
        return self.call_at(self._world.now, call, *args)

    def call_later(self, delay: float, call: Callable[..., None], *args: Any) -> _Handle:
        return self.call_at(self._world.now + delay, call, *args)

    def call_at(self, moment: float, call: Callable[..., None], *args: Any) -> _Handle:
        handle = _Handle()
        self._world.at(moment, self._run, handle, call, args)
        return handle

    def _run(self, handle: _Handle, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        process = self._process
        if process.died_at is not None or handle.is_cancelled:
            return
        if process.stalled_until > self._world.now:
            self._world.at(process.stalled_until, self._run, handle, call, args)
            return
        call(*args)
