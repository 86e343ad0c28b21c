"""Slots and waiting lines: a job is begun or handed back, never both and never neither."""

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.timing import TIMEOUT, wait_until
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.slots import Job, Line, Slots
from threadko.exceptions import ContainerStopped

MakeSlots = Callable[[int], Slots]


@pytest.fixture
def make_slots() -> Iterator[MakeSlots]:
    """Makes slots that as many threads serve, which end with the test."""
    made: list[Slots] = []
    threads: list[threading.Thread] = []

    def make(count: int) -> Slots:
        slots = Slots()
        made.append(slots)
        threads.extend(threading.Thread(target=slots.serve, daemon=True) for _ in range(count))
        for thread in threads[-count:]:
            thread.start()
        wait_until(lambda: len(slots._seats) == count)
        return slots

    yield make
    for slots in made:
        slots.dismiss()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


class Work:
    """A job that says when it has begun, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.thread_id: int | None = None

    def __call__(self) -> None:
        self.thread_id = threading.get_ident()
        self.begun.set()
        assert self.release.wait(TIMEOUT)


class Asked(Deadline):
    """A deadline that never comes, and tells when somebody is about to wait for it.

    It is asked with the lock held that whoever wakes the waiter needs, too: so none is too early.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.waited_for = threading.Event()

    def remaining(self) -> float | None:
        self.waited_for.set()
        return super().remaining()


def is_idle(slots: Slots) -> bool:
    return slots.wait_idle(Deadline(TIMEOUT))


def test_job_begins_at_once_when_a_slot_is_free(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    began = threading.Event()
    slots.open_line("a").put(began.set)
    assert began.wait(TIMEOUT)
    assert is_idle(slots)


def test_nothing_begins_before_the_slots_are_open(make_slots: MakeSlots) -> None:
    slots = make_slots(2)
    line = slots.open_line("a")
    began: list[str] = []
    line.put(lambda: began.append("a"))
    assert (len(line), slots.busy, began) == (1, 0, [])
    assert is_idle(slots)
    slots.open()
    assert is_idle(slots)
    assert (len(line), began) == (0, ["a"])


def test_what_waited_for_the_opening_begins_on_all_slots(make_slots: MakeSlots) -> None:
    slots = make_slots(3)
    line = slots.open_line("a")
    works = [Work() for _ in range(4)]
    for work in works:
        line.put(work)
    slots.open()
    for work in works[:3]:
        assert work.begun.wait(TIMEOUT)
    assert (len(line), slots.busy) == (1, 3)
    for work in works:
        work.release.set()
    assert is_idle(slots)
    assert works[3].begun.is_set()


def test_no_more_jobs_run_at_once_than_there_are_slots(make_slots: MakeSlots) -> None:
    slots = make_slots(3)
    slots.open()
    lock = threading.Lock()
    running, most = 0, 0
    together = threading.Barrier(3)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(TIMEOUT)
        with lock:
            running -= 1
        together.wait(TIMEOUT)

    line = slots.open_line("a")
    for _ in range(30):
        line.put(work)
    assert is_idle(slots)
    assert most == 3


def test_lines_take_turns_when_slots_are_scarce(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    first = Work()
    slots.open_line("first").put(first)
    assert first.begun.wait(TIMEOUT)
    order: list[str] = []
    full, poor = slots.open_line("full"), slots.open_line("poor")
    for number in range(3):
        full.put(lambda number=number: order.append(f"full {number}"))
    for number in range(2):
        poor.put(lambda number=number: order.append(f"poor {number}"))
    first.release.set()
    assert is_idle(slots)
    assert order == ["full 0", "poor 0", "full 1", "poor 1", "full 2"]


def test_line_that_ran_dry_goes_behind_those_that_wait(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    first = Work()
    slots.open_line("first").put(first)
    assert first.begun.wait(TIMEOUT)
    order: list[str] = []
    busy, other = slots.open_line("busy"), slots.open_line("other")

    def again() -> None:
        order.append("busy 0")
        busy.put(lambda: order.append("busy 1"))

    busy.put(again)
    for number in range(2):
        other.put(lambda number=number: order.append(f"other {number}"))
    first.release.set()
    assert is_idle(slots)
    assert order == ["busy 0", "other 0", "busy 1", "other 1"]


def test_freed_thread_runs_the_next_job_itself(make_slots: MakeSlots) -> None:
    slots = make_slots(2)
    slots.open()
    line = slots.open_line("a")
    works = [Work() for _ in range(4)]
    for work in works:
        line.put(work)
    assert works[0].begun.wait(TIMEOUT)
    assert works[1].begun.wait(TIMEOUT)
    works[0].release.set()
    assert works[2].begun.wait(TIMEOUT)
    works[2].release.set()
    assert works[3].begun.wait(TIMEOUT)
    assert works[0].thread_id == works[2].thread_id == works[3].thread_id
    assert works[1].thread_id != works[0].thread_id
    for work in works:
        work.release.set()
    assert is_idle(slots)


def test_thread_that_worked_last_works_next(make_slots: MakeSlots) -> None:
    slots = make_slots(3)
    slots.open()
    line = slots.open_line("a")
    works = [Work() for _ in range(3)]
    for work in works:
        line.put(work)
        assert work.begun.wait(TIMEOUT)
    for work in works:
        work.release.set()
    assert is_idle(slots)
    threads: list[int] = []
    for _ in range(20):
        line.put(lambda: threads.append(threading.get_ident()))
        assert is_idle(slots)
    assert len(set(threads)) == 1


def test_all_threads_come_to_work_though_each_is_woken_by_the_one_before(
    make_slots: MakeSlots,
) -> None:
    slots = make_slots(8)
    slots.open()
    lines = [slots.open_line(name) for name in "ab"]
    for _ in range(300):
        together = threading.Barrier(8)
        for number in range(8):
            lines[number % 2].put(lambda together=together: together.wait(TIMEOUT))
        assert is_idle(slots)
        assert not together.broken


def test_job_put_at_once_begins_while_a_thread_is_idle(make_slots: MakeSlots) -> None:
    slots = make_slots(3)
    slots.open()
    line, hurried = slots.open_line("a"), slots.open_line("b")
    for _ in range(1000):
        line.put(int)  # whose thread is just being woken
        work = Work()
        work.release.set()
        hurried.put(work, at_once=True)
        assert not hurried.withdraw(work)
        assert is_idle(slots)


def test_jobs_wait_for_threads_that_come_later() -> None:
    slots = Slots()
    slots.open()
    began = threading.Event()
    line = slots.open_line("a")
    line.put(began.set)
    assert (len(line), slots.busy) == (1, 0)
    thread = threading.Thread(target=slots.serve)
    thread.start()
    assert began.wait(TIMEOUT)
    slots.dismiss()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_thread_that_comes_to_dismissed_slots_leaves_at_once() -> None:
    slots = Slots()
    line = slots.open_line("a")
    line.put(int)
    slots.dismiss()
    slots.open()
    slots.serve()
    assert (len(line), slots.busy) == (1, 0)


@pytest.mark.parametrize("end", [Slots.dismiss, Slots.kill])
def test_busy_thread_leaves_when_its_job_has_ended(end: Callable[[Slots], None]) -> None:
    slots = Slots()
    slots.open()
    line = slots.open_line("a")
    work, never = Work(), Work()
    line.put(work)
    line.put(never)
    thread = threading.Thread(target=slots.serve)
    thread.start()
    assert work.begun.wait(TIMEOUT)
    end(slots)
    work.release.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert line.close() == [never]
    assert slots.busy == 0


def test_withdrawn_job_never_begins(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    line = slots.open_line("a")
    first, second, third = Work(), Work(), Work()
    for work in (first, second, third):
        line.put(work)
    assert first.begun.wait(TIMEOUT)
    assert line.withdraw(second)
    assert not line.withdraw(second)
    assert not line.withdraw(first)
    for work in (first, second, third):
        work.release.set()
    assert is_idle(slots)
    assert third.begun.is_set()
    assert not second.begun.is_set()


def test_line_emptied_by_withdrawing_leaves_its_turn_to_others(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    gone, other = slots.open_line("gone"), slots.open_line("other")
    first, lonely = Work(), Work()
    other.put(first)
    assert first.begun.wait(TIMEOUT)
    gone.put(lonely)
    assert gone.withdraw(lonely)
    began = threading.Event()
    other.put(began.set)
    first.release.set()
    assert is_idle(slots)
    assert began.is_set()


def test_closed_line_hands_back_what_had_not_begun_in_its_order(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    line, other = slots.open_line("a"), slots.open_line("b")
    works = [Work() for _ in range(4)]
    for work in works[:3]:
        line.put(work)
    other.put(works[3])
    assert works[0].begun.wait(TIMEOUT)
    assert line.close() == works[1:3]
    assert line.close() == []
    for work in works:
        work.release.set()
    assert is_idle(slots)
    assert [work.begun.is_set() for work in works] == [True, False, False, True]


def test_closed_line_refuses_jobs(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    line = slots.open_line("orders")
    line.close()
    with pytest.raises(ContainerStopped, match="orders"):
        line.put(int)
    assert slots.busy == 0


def test_closed_slots_grant_nothing_more_and_leave_jobs_in_their_line(
    make_slots: MakeSlots,
) -> None:
    slots = make_slots(1)
    slots.open()
    line = slots.open_line("a")
    works = [Work(), Work(), Work()]
    line.put(works[0])
    line.put(works[1])
    assert works[0].begun.wait(TIMEOUT)
    slots.close()
    works[0].release.set()
    assert is_idle(slots)
    line.put(works[2])
    assert is_idle(slots)
    assert line.close() == works[1:]
    assert not any(work.begun.is_set() for work in works[1:])


def test_wait_idle_gives_up_at_its_deadline(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    work = Work()
    slots.open_line("a").put(work)
    assert work.begun.wait(TIMEOUT)
    assert not slots.wait_idle(Deadline(0.01))
    work.release.set()
    assert slots.wait_idle(Deadline(TIMEOUT))


def test_wait_idle_is_woken_by_the_last_job(make_slots: MakeSlots) -> None:
    slots = make_slots(2)
    slots.open()
    line = slots.open_line("a")
    works = [Work(), Work()]
    for work in works:
        line.put(work)
        assert work.begun.wait(TIMEOUT)
    answers: list[bool] = []
    deadline = Asked()
    waiter = threading.Thread(target=lambda: answers.append(slots.wait_idle(deadline)))
    waiter.start()
    assert deadline.waited_for.wait(TIMEOUT)
    works[0].release.set()
    works[1].release.set()
    waiter.join(TIMEOUT)
    assert answers == [True]


def test_kill_wakes_those_who_wait_for_idleness(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    work = Work()
    slots.open_line("a").put(work)
    assert work.begun.wait(TIMEOUT)
    answers: list[bool] = []
    deadline = Asked()
    waiter = threading.Thread(target=lambda: answers.append(slots.wait_idle(deadline)))
    waiter.start()
    assert deadline.waited_for.wait(TIMEOUT)
    slots.kill()
    waiter.join(TIMEOUT)
    assert answers == [False]
    assert not slots.wait_idle(Deadline(None))
    work.release.set()


def test_killed_slots_never_open_again(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    line = slots.open_line("a")
    slots.kill()
    line.put(int)
    slots.open()
    assert (len(line), slots.busy) == (1, 0)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_job_that_raises_costs_neither_slot_nor_thread(
    make_slots: MakeSlots, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    slots = make_slots(1)
    slots.open()
    line = slots.open_line("a")
    first = Work()
    line.put(first)
    assert first.begun.wait(TIMEOUT)
    seen: list[int] = []

    def fail() -> None:
        raise error("boom")

    line.put(fail)
    line.put(lambda: seen.append(threading.get_ident()))
    first.release.set()
    assert is_idle(slots)
    assert seen == [first.thread_id]
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is error


ROUNDS = 1000


class Round:
    """Jobs that are put, withdrawn and handed back by four threads at the same time."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.runs = [0] * 6
        self.jobs: list[Job] = [partial(self._run, number) for number in range(6)]
        self.returned: list[Job] = []  # appended to by all; each append is one step

    def _run(self, number: int) -> None:
        self.runs[number] += 1

    def play(self, role: int) -> None:
        """Be one of the four: two put, one withdraws, one closes the line."""
        if role < 2:
            for job in self.jobs[role::2]:
                try:
                    self.line.put(job)
                except ContainerStopped:
                    self.returned.append(job)
        elif role == 2:
            self.returned += [job for job in reversed(self.jobs) if self.line.withdraw(job)]
        else:
            self.returned += self.line.close()

    def outcomes(self) -> list[int]:
        """How often each job was begun or handed back, in all."""
        return [
            runs + self.returned.count(job) for runs, job in zip(self.runs, self.jobs, strict=True)
        ]


def test_each_job_is_begun_or_handed_back_in_any_interleaving(make_slots: MakeSlots) -> None:
    slots = make_slots(2)
    slots.open()
    rounds = [Round(slots.open_line("a")) for _ in range(ROUNDS)]
    together = threading.Barrier(4)

    def play(role: int) -> None:
        for each in rounds:
            together.wait(TIMEOUT)
            each.play(role)

    players = [threading.Thread(target=play, args=(role,)) for role in range(4)]
    for player in players:
        player.start()
    for player in players:
        player.join(2 * TIMEOUT)
    assert is_idle(slots)
    assert slots.busy == 0
    assert [each.outcomes() for each in rounds] == [[1] * 6] * ROUNDS


def test_slots_that_close_and_open_under_load_lose_no_job(make_slots: MakeSlots) -> None:
    slots = make_slots(2)
    ran: list[int] = []
    start = threading.Barrier(4)

    def feed(line: Line) -> None:
        start.wait(TIMEOUT)
        for number in range(ROUNDS):
            line.put(partial(ran.append, number))

    def flap() -> None:
        start.wait(TIMEOUT)
        for _ in range(ROUNDS):
            slots.open()
            slots.close()

    threads = [threading.Thread(target=flap)]
    for name in ("a", "b", "c"):
        threads.append(threading.Thread(target=feed, args=(slots.open_line(name),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT)
    slots.open()
    assert is_idle(slots)
    assert sorted(ran) == sorted([*range(ROUNDS)] * 3)


# Threads of somebody else's


def test_thread_that_enters_takes_a_slot_and_wakes_nobody(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    line = slots.open_line("http")
    work = Work()
    assert line.enter(Deadline(TIMEOUT))
    assert slots.busy == 1
    line.put(work)
    assert not slots.wait_idle(Deadline(0))
    assert not work.begun.is_set()
    line.leave()
    assert work.begun.wait(TIMEOUT)
    work.release.set()
    assert slots.wait_idle(Deadline(TIMEOUT))


def test_thread_that_enters_waits_for_its_turn(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    first, second = slots.open_line("first"), slots.open_line("second")
    busy, later = Work(), Work()
    first.put(busy)
    assert busy.begun.wait(TIMEOUT)
    deadline = Asked()
    entered, leave = threading.Event(), threading.Event()

    def visit() -> None:
        assert second.enter(deadline)
        entered.set()
        assert leave.wait(TIMEOUT)
        second.leave()

    visitor = threading.Thread(target=visit)
    visitor.start()
    assert deadline.waited_for.wait(TIMEOUT)
    first.put(later)
    busy.release.set()
    assert entered.wait(TIMEOUT)
    assert not later.begun.is_set()
    leave.set()
    visitor.join(TIMEOUT)
    assert later.begun.wait(TIMEOUT)
    later.release.set()


def test_thread_that_waits_too_long_leaves_nothing_behind(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    slots.open()
    line = slots.open_line("http")
    work = Work()
    line.put(work)
    assert work.begun.wait(TIMEOUT)
    assert not line.enter(Deadline(0.01))
    assert len(line) == 0
    work.release.set()
    assert slots.wait_idle(Deadline(TIMEOUT))
    assert line.enter(Deadline(TIMEOUT))
    line.leave()


def test_thread_that_waits_is_refused_when_the_line_is_closed(make_slots: MakeSlots) -> None:
    slots = make_slots(1)
    line = slots.open_line("http")
    deadline = Asked()
    refused = threading.Event()

    def visit() -> None:
        with pytest.raises(ContainerStopped):
            line.enter(deadline)
        refused.set()

    visitor = threading.Thread(target=visit)
    visitor.start()
    assert deadline.waited_for.wait(TIMEOUT)
    assert line.close() == []
    visitor.join(TIMEOUT)
    assert refused.is_set()
    with pytest.raises(ContainerStopped):
        line.enter(Deadline(TIMEOUT))


def test_slots_may_be_dismissed_while_somebody_is_inside(make_slots: MakeSlots) -> None:
    slots = make_slots(2)
    slots.open()
    line = slots.open_line("http")
    assert line.enter(Deadline(TIMEOUT))
    slots.dismiss()
    line.leave()
    assert slots.wait_idle(Deadline(TIMEOUT))


def test_opening_lets_all_in_who_wait(make_slots: MakeSlots) -> None:
    slots = make_slots(3)
    line = slots.open_line("http")
    barrier = threading.Barrier(4)
    deadlines = [Asked() for _ in range(3)]

    def visit(deadline: Asked) -> None:
        assert line.enter(deadline)
        barrier.wait(TIMEOUT)  # all three are inside at once
        line.leave()

    visitors = [threading.Thread(target=visit, args=(deadline,)) for deadline in deadlines]
    for visitor in visitors:
        visitor.start()
    for deadline in deadlines:
        assert deadline.waited_for.wait(TIMEOUT)
    slots.open()
    barrier.wait(TIMEOUT)
    for visitor in visitors:
        visitor.join(TIMEOUT)
    assert slots.wait_idle(Deadline(TIMEOUT))


def test_visitors_and_jobs_never_exceed_the_slots(make_slots: MakeSlots) -> None:
    slots = make_slots(3)
    slots.open()
    inside = threading.Semaphore(3)
    lines = [slots.open_line(name) for name in ("http", "rpc")]
    done = threading.Semaphore(0)
    errors: list[str] = []

    def work() -> None:
        if not inside.acquire(blocking=False):
            errors.append("more than there are slots")
            return
        inside.release()
        done.release()

    def visit() -> None:
        for _ in range(200):
            if not lines[0].enter(Deadline(TIMEOUT)):
                errors.append("not let in")
                return
            work()
            lines[0].leave()

    visitors = [threading.Thread(target=visit) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    for _ in range(600):
        lines[1].put(work)
    for visitor in visitors:
        visitor.join(TIMEOUT)
    for _ in range(1800):
        assert done.acquire(timeout=TIMEOUT)
    assert slots.wait_idle(Deadline(TIMEOUT))
    assert errors == []
