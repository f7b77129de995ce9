"""The decisions about one replica, as tables and as random histories."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allod import limits
from allod.runtime.decide import (
    Action,
    Answered,
    Begin,
    Event,
    Exited,
    Finish,
    Kill,
    Life,
    Look,
    Rest,
    Rested,
    Silent,
    Start,
    Started,
    StopAsked,
    back_off,
    step,
)


def drive(life: Life, *events: tuple[float, Event]) -> tuple[Life, Action]:
    action: Action = Finish()
    for now, event in events:
        life, action = step(life, event, now, ready_timeout_s=10.0)
    return life, action


def test_a_healthy_replica_becomes_ready() -> None:
    life, action = drive(Life(), (0, Begin()), (0.1, Started()), (0.2, Silent("socket")), (0.5, Answered()))
    assert (life.state, life.reason, life.restarts) == ("ready", "", 0)
    assert action == Look(limits.HEALTH_READY_INTERVAL_S)


def test_a_crash_rests_before_the_next_start_and_says_why() -> None:
    life, action = drive(Life(), (0, Begin()), (0.1, Started()), (0.2, Exited("exit status 3: no weights")))
    assert (life.state, life.reason) == ("failed", "exit status 3: no weights")
    assert action == Rest(limits.RESTART_BACKOFF_FIRST_S)
    life, action = drive(life, (1, Rested()))
    assert action == Start()
    assert life.restarts == 1


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.5), (2, 1), (5, 8), (7, 32), (8, 60), (10_000, 60)])
def test_the_pause_doubles_up_to_a_minute(failures: int, seconds: float) -> None:
    assert back_off(failures) == seconds


def test_never_ready_is_killed_and_keeps_that_reason() -> None:
    life, action = drive(Life(), (0, Begin()), (0, Started()), (9.9, Silent("answered 503")))
    assert isinstance(action, Look)
    life, action = drive(life, (10.0, Silent("answered 503")))
    assert action == Kill()
    life, action = drive(life, (10.1, Exited("killed by SIGKILL")))
    assert life.reason == "was not ready within 10 s: answered 503"
    assert action == Rest(limits.RESTART_BACKOFF_FIRST_S)


def test_one_missed_answer_changes_nothing_three_make_it_unhealthy_and_two_minutes_restart_it() -> None:
    ready = Life(state="ready", since=0, starts=1, running=True)
    life, _ = drive(ready, (2, Silent("slow")), (4, Silent("slow")))
    assert life.state == "ready"
    life, _ = drive(life, (6, Silent("slow")))
    assert (life.state, life.reason) == ("unhealthy", "slow")
    recovered, _ = drive(life, (8, Answered()))
    assert recovered.state == "ready"
    life, action = drive(life, (6 + limits.UNHEALTHY_RESTART_S, Silent("slow")))
    assert action == Kill()


def test_a_crash_after_a_steady_time_starts_at_the_first_pause_again() -> None:
    ready = Life(state="ready", since=0, starts=9, failures=8, running=True)
    assert drive(ready, (limits.RESTART_STEADY_S + 1, Exited("killed")))[1] == Rest(back_off(1))
    assert drive(ready, (1, Exited("killed")))[1] == Rest(back_off(9))
    assert not drive(ready, (limits.RESTART_STEADY_S + 1, Answered()))[0].crash_looping


def test_stopping_ends_it_once_and_for_all() -> None:
    life, action = drive(Life(state="ready", running=True), (1, StopAsked()))
    assert action == Kill()
    life, action = drive(life, (2, Exited("exit status 0")))
    assert (life.state, action) == ("stopped", Finish())
    assert drive(Life(state="failed"), (1, StopAsked()))[1] == Finish()


@given(
    st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["answer", "silent", "exit", "stop"])), max_size=60)
)
def test_no_history_starts_two_processes_or_starts_without_a_rest(history: list[tuple[float, str]]) -> None:
    now, running, rested = 0.0, 0, True
    life, action = step(Life(), Begin(), now, ready_timeout_s=10)
    for passed, wish in [*history, (0.0, "stop"), (0.0, "stop")]:
        now += passed
        event: Event
        match action:
            case Start():
                assert rested
                assert running == 0
                rested = False
                if wish == "exit":
                    event = Exited("missing program")
                else:
                    running, event = 1, Started()
            case Look():
                assert running == 1
                event = {
                    "answer": Answered(),
                    "silent": Silent("x"),
                    "exit": Exited("x"),
                    "stop": StopAsked(),
                }[wish]
                running -= wish == "exit"
            case Kill():
                assert running == 1
                running, event = 0, Exited("killed")
            case Rest(seconds):
                assert seconds >= limits.RESTART_BACKOFF_FIRST_S
                rested = True
                event = StopAsked() if wish == "stop" else Rested()
            case Finish():
                assert running == 0
                return
        life, action = step(life, event, now, ready_timeout_s=10)
        assert msgspec.structs.asdict(life)["running"] == bool(running)
