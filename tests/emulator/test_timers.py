from arivox.emulator.timers import Timers


def test_calls_are_made_in_the_order_of_their_time_and_then_of_asking() -> None:
    made: list[tuple[str, float]] = []
    timers = Timers(lambda when: None)
    for name, when in (("late", 3.0), ("first", 1.0), ("second", 1.0), ("never", 9.0)):
        timers.at(when, lambda now, name=name: made.append((name, now)))  # type: ignore[misc]
    timers.run(0.9)
    assert made == []
    timers.run(3.5)
    assert made == [("first", 3.5), ("second", 3.5), ("late", 3.5)]


def test_wake_is_told_the_next_time_only() -> None:
    woken: list[float] = []
    timers = Timers(woken.append)
    timers.at(5, lambda now: None)
    timers.at(7, lambda now: None)
    timers.at(2, lambda now: None)
    assert woken == [5, 2]
    timers.run(2)
    assert woken == [5, 2, 5]
    timers.run(7)
    assert woken == [5, 2, 5]
    timers.at(9, lambda now: None)
    assert woken == [5, 2, 5, 9]


def test_a_cancelled_call_is_never_made() -> None:
    made: list[float] = []
    timers = Timers(lambda when: None)
    timers.at(1, made.append).cancel()
    timer = timers.at(2, made.append)
    timers.run(2)
    timer.cancel()
    timers.at(3, made.append)
    timers.clear()
    timers.run(9)
    assert made == [2]


def test_a_call_may_ask_for_another_that_is_due_already() -> None:
    made: list[str] = []
    timers = Timers(lambda when: None)

    def outer(now: float) -> None:
        timers.at(now, lambda _: made.append("inner"))

    timers.at(1, outer)
    timers.run(1)
    assert made == ["inner"]
