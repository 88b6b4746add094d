"""What the router says about its targets, the orders it takes from admins, and what callers hear when all are shut."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.processes import free_port
from local.providers import Fault, StandIn
from tests.conftest import ServeApp
from tests.fleet import ADMIN_KEY, KEYS, POLL_SECONDS, fleet_routes, table_environment
from tests.routes_for import KEY, ONCE, Stage, chat_body, raw_request

UNTOUCHED: Mapping[str, Any] = {
    "target": "one",
    "provider": "one",
    "model": "model-of-one",
    "state": "closed",
    "generation": 0,
    "since": None,
    "faults": 0,
    "requests": 0,
    "open_until": None,
    "parked_until": None,
    "probe": None,
    "share": 1.0,
    "last_error": None,
    "manual": None,
    "speed": None,
    "refusal": None,
    "sharing": "local",
    "sharing_since": None,
}
STEADY = {"open_jitter": 0.0}
DOWN = Fault("status", status=503)


class Desk:
    """A router, and the two callers it knows: a user and the admin kim."""

    def __init__(self, stage: Stage, serve_app: ServeApp, folder: Path) -> None:
        self.stage, self._serve_app, self._folder = stage, serve_app, folder

    def serve(self, *standins: StandIn, environment: Mapping[str, str] | None = None, **tables: Any) -> None:
        """Serves a router in front of the stand-ins that asks nobody twice."""
        routes = fleet_routes(self._folder, standins, **{"route": {"retry": ONCE}, **tables})
        self.stage.url = self._serve_app({"ROUTER_CONFIG": str(routes), **KEYS, **(environment or {})})

    def status(self, target: str = "one") -> dict[str, Any]:
        """What the router says about one target."""
        with self.stage.http() as client:
            answer = client.get("/v1/router/status")
        assert answer.status_code == 200, answer.text
        return {each["target"]: each for each in answer.json()["targets"]}[target]

    def order(self, target: str = "one", key: str = ADMIN_KEY, **options: Any) -> httpx.Response:
        """An order as JSON, or whatever `options` say."""
        with self.stage.http(headers={"authorization": f"Bearer {key}"} if key else {}) as client:
            return client.post(f"/v1/router/breakers/{target}", **options)

    def isolate(self, target: str, **fields: Any) -> dict[str, Any]:
        """Has the target isolated."""
        answer = self.order(target, json={"action": "isolate", "reason": "maintenance", **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, true: Callable[[Mapping[str, Any]], bool], seconds: float = 5.0) -> None:
        """Waits until what the router says about `one` is true."""
        deadline = time.monotonic() + seconds
        while not true(seen := self.status()):
            assert time.monotonic() < deadline, seen
            time.sleep(POLL_SECONDS)

    def asked_until(self, status: int, seconds: float = 5.0) -> httpx.Response:
        """Asks until the answer has that status."""
        deadline = time.monotonic() + seconds
        while (answer := self.stage.ask()).status_code != status:
            assert time.monotonic() < deadline, f"still {answer.status_code}: {answer.text}"
            time.sleep(POLL_SECONDS)
        return answer


@pytest.fixture
def desk(stage: Stage, serve_app: ServeApp, tmp_path: Path) -> Desk:
    return Desk(stage, serve_app, tmp_path)


def soon(at: float | None, seconds: float, slack: float = 5.0) -> bool:
    """Whether `at` lies `seconds` ahead, as it was said up to `slack` seconds ago."""
    return at is not None and seconds - slack <= at - time.time() <= seconds


def test_a_target_that_nobody_asked_yet(desk):
    desk.serve(desk.stage.standin(name="one"))
    assert desk.status() == UNTOUCHED


def test_answers_are_counted_and_timed(desk):
    desk.serve(desk.stage.standin(name="one", first_token=0.02))
    desk.stage.ask(stream=True)
    desk.stage.ask()
    seen = desk.status()
    assert (seen["requests"], seen["faults"], seen["share"]) == (2, 0, 1.0)
    assert 0.02 <= seen["speed"]["first_token_seconds"] < 5
    assert seen["speed"]["tokens_per_second"] > 0


def test_faults_are_counted_before_they_are_enough(desk):
    one = desk.stage.standin(name="one", fault=DOWN)
    desk.serve(one, desk.stage.standin(name="two"))
    assert desk.stage.ask().headers["x-router-target"] == "two"
    assert {**desk.status(), "since": None} == {
        **UNTOUCHED,
        "requests": 1,
        "faults": 1,
        "last_error": "Unavailable",
    }


@pytest.mark.parametrize(
    ("fault", "error", "seconds"),
    [(DOWN, "Unavailable", 30.0), (Fault("unauthorized"), "Unauthorized", 600.0)],
    ids=["faults", "a-refused-key"],
)
def test_an_open_breaker_says_since_when_until_when_and_why(desk, fault, error, seconds):
    desk.serve(desk.stage.standin(name="one", fault=fault), breaker={"failure_threshold": 1, **STEADY})
    desk.stage.ask()
    seen = desk.status()
    assert (seen["state"], seen["generation"], seen["share"], seen["last_error"]) == ("open", 1, 0.0, error)
    assert soon(seen["since"], 0.0)
    assert soon(seen["open_until"], seconds)
    assert seen["refusal"] == {"target": "one", "reason": "open", "retry_at": seen["open_until"]}


def test_a_throttled_target_is_parked_and_not_ill(desk):
    desk.serve(desk.stage.standin(name="one", fault=Fault("rate_limited", retry_after=40)))
    desk.stage.ask()
    seen = desk.status()
    assert (seen["state"], seen["faults"], seen["open_until"]) == ("closed", 0, None)
    assert soon(seen["parked_until"], 40.0)
    assert seen["refusal"] == {"target": "one", "reason": "parked", "retry_at": seen["parked_until"]}
    assert seen["share"] == 0.0


def test_a_running_probe_shows_and_one_whose_caller_leaves_is_no_news(desk):
    one = desk.stage.standin(name="one", fault=DOWN)
    desk.serve(one, breaker={"failure_threshold": 1, "open_seconds": 0.1})
    desk.stage.ask()
    one.behave(fault=Fault("hang"))
    desk.until(lambda seen: seen["open_until"] is None)
    with desk.stage.connection() as caller:
        caller.sendall(raw_request(chat_body()))
        desk.stage.until(one, lambda standin: standin.running == 1)
        seen, meanwhile = desk.status(), desk.stage.ask()
    assert (seen["state"], seen["share"], seen["refusal"]["reason"]) == ("half_open", 0.0, "probing")
    assert soon(seen["probe"]["started"], 0.0)
    assert soon(seen["probe"]["until"], 30.0)
    assert seen["probe"]["holder"]
    assert (meanwhile.status_code, meanwhile.headers["retry-after"]) == (503, "1")
    one.behave(fault=None)
    desk.asked_until(200)
    assert desk.status()["state"] == "closed"


def test_traffic_comes_back_little_by_little(desk):
    one = desk.stage.standin(name="one", fault=DOWN)
    desk.serve(one, breaker={"failure_threshold": 1, "open_seconds": 0.1, "ramp_seconds": 3600})
    desk.stage.ask()
    one.behave(fault=None)
    desk.asked_until(200)
    seen = desk.status()
    assert (seen["state"], seen["share"], seen["open_until"], seen["probe"]) == ("closed", 0.1, None, None)
    assert desk.stage.ask().status_code == 200, "the only target is asked all the same"


def test_an_isolated_target_is_left_alone_and_shows_by_whom_and_why(desk):
    one, two = desk.stage.standin(name="one"), desk.stage.standin(name="two")
    desk.serve(one, two)
    answer = desk.isolate("one", seconds=120)
    assert answer == desk.status()
    assert soon(answer["manual"].pop("until"), 120.0)
    assert answer["manual"] == {"action": "isolate", "by": "kim", "reason": "maintenance"}
    assert (answer["generation"], answer["share"], answer["refusal"]["reason"]) == (1, 0.0, "isolated")
    assert desk.stage.ask().headers["x-router-target"] == "two"
    assert one.asked == 0


def test_an_order_ends_by_itself(desk):
    desk.serve(desk.stage.standin(name="one"))
    desk.isolate("one", seconds=0.5)
    desk.asked_until(200)
    assert desk.status()["manual"] is None


def test_an_order_without_an_end_has_that_of_the_settings(desk):
    desk.serve(desk.stage.standin(name="one"), breaker={"manual_seconds": 90})
    assert soon(desk.isolate("one")["manual"]["until"], 90.0)


def test_a_target_that_is_ordered_closed_is_asked_whatever_it_answers(desk):
    one = desk.stage.standin(name="one", fault=DOWN)
    desk.serve(one, breaker={"failure_threshold": 1})
    desk.stage.ask()
    answer = desk.order(json={"action": "close", "reason": "it is back"}).json()
    assert (answer["state"], answer["manual"]["action"], answer["refusal"]) == ("closed", "close", None)
    assert [desk.stage.ask().status_code for _ in range(3)] == [502] * 3
    assert one.asked == 4
    assert desk.status()["state"] == "closed"


def test_a_reset_is_as_if_nothing_had_happened(desk):
    one = desk.stage.standin(name="one", fault=DOWN)
    desk.serve(one, breaker={"failure_threshold": 1})
    desk.stage.ask()
    desk.isolate("one")
    answer = desk.order(json={"action": "reset", "reason": "start anew"})
    assert answer.json() == desk.status() == {**UNTOUCHED, "generation": 3}


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(KEY, 403, "forbidden"), ("nobodys-key", 401, "invalid_api_key"), ("", 401, "invalid_api_key")],
    ids=["a-user", "a-stranger", "nobody"],
)
def test_orders_are_for_admins(desk, key, status, code):
    desk.serve(desk.stage.standin(name="one"))
    answer = desk.order(key=key, json={"action": "isolate", "reason": "mischief"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert desk.status() == UNTOUCHED


def test_the_status_is_for_callers(desk):
    desk.serve(desk.stage.standin(name="one"))
    with desk.stage.http(headers={}) as stranger:
        assert stranger.get("/v1/router/status").status_code == 401


@pytest.mark.parametrize("path", ["nothing", "one%20", "chat"])
def test_an_order_for_a_target_that_does_not_exist_lists_those_that_do(desk, path):
    desk.serve(desk.stage.standin(name="one"), desk.stage.standin(name="two"))
    answer = desk.order(path, json={"action": "isolate", "reason": "maintenance"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404, "target")
    assert error["message"].endswith("targets are one, two.")


ORDER = {"action": "isolate", "reason": "maintenance"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reason": "maintenance"}, "action"),
        ({**ORDER, "action": "open"}, "action"),
        ({**ORDER, "action": None}, "action"),
        ({"action": "isolate"}, "reason"),
        ({**ORDER, "reason": ""}, "reason"),
        ({**ORDER, "reason": "x" * 201}, "reason"),
        ({**ORDER, "reason": 7}, "reason"),
        ({**ORDER, "reason": " \t"}, "reason"),
        ({**ORDER, "second": 60}, "second"),
        ({**ORDER, "seconds": True}, "seconds"),
        ({**ORDER, "seconds": "60"}, "seconds"),
        ({**ORDER, "seconds": 0}, "seconds"),
        ({**ORDER, "seconds": -1}, "seconds"),
        ({**ORDER, "seconds": 604_801}, "seconds"),
        ({**ORDER, "seconds": "an hour"}, "seconds"),
        ({**ORDER, "seconds": {}}, "seconds"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_order_that_makes_no_sense_is_refused_naming_the_place(desk, body, param):
    desk.serve(desk.stage.standin(name="one"))
    answer = desk.order(json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert answer.headers["x-should-retry"] == "false"
    assert desk.status() == UNTOUCHED


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"content": b"{"}, 400),
        ({"content": b""}, 400),
        ({"json": [ORDER]}, 400),
        ({"content": b'{"action": "isolate", "reason": "x", "seconds": NaN}'}, 400),
        ({"data": ORDER}, 415),
        ({"json": {**ORDER, "padding": "x" * 2_000}}, 413),
    ],
    ids=["cut", "empty", "a-list", "not-a-number", "a-form", "too-large"],
)
def test_an_order_that_cannot_be_read_is_refused(desk, options, status):
    desk.serve(desk.stage.standin(name="one"), server={"max_body_bytes": 1_024})
    assert desk.order(**options).status_code == status
    assert desk.status() == UNTOUCHED


def test_an_order_reaches_whoever_shares_the_table(desk, azurite):
    name = f"one-{uuid.uuid4().hex[:8]}"  # the table is everybody's
    shared = {"ROUTER_TABLES": azurite}
    standin = desk.stage.standin(name=name)
    desk.serve(standin, environment=shared, health={"store_timeout_seconds": 5})
    ordered = desk.isolate(name, reason="for all")
    assert (ordered["sharing"], ordered["refusal"]["reason"]) == ("shared", "isolated")
    assert soon(ordered["sharing_since"], 0.0, slack=30)

    desk.serve(standin, environment=shared, health={"store_timeout_seconds": 5})  # another one, which was not told
    assert desk.asked_until(503).json()["error"]["code"] == "no_target_available"
    assert desk.status(name)["manual"] == ordered["manual"]


def test_a_lost_table_shows_and_orders_are_taken_all_the_same(desk):
    desk.serve(
        desk.stage.standin(name="one"),
        environment=table_environment(free_port()),
        health={"refresh_seconds": 0.05, "store_retry_seconds": 0.05},
    )
    desk.until(lambda seen: desk.stage.ask().status_code == 200 and seen["sharing"] == "degraded")
    assert soon(desk.status()["sharing_since"], 0.0)
    desk.isolate("one")
    assert desk.stage.ask().status_code == 503


def opened(seconds: float) -> dict[str, Any]:
    """A target whose breaker opens at the first fault, for so long."""
    return {"breaker": {"failure_threshold": 1, "open_seconds": seconds, **STEADY}}


def busy(seconds: float) -> Fault:
    return Fault("rate_limited", retry_after=seconds)


SHUT = {
    "both-open": (DOWN, DOWN, 503, 20),
    "both-parked": (busy(50), busy(30), 429, 30),
    "parked-and-open": (busy(15), DOWN, 503, 15),
    "open-and-parked-for-long": (DOWN, busy(300), 503, 40),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("first", "second", "status", "soonest"), SHUT.values(), ids=SHUT)
def test_when_all_are_shut_the_answer_says_when_the_first_may_be_back(desk, first, second, status, soonest, stream):
    one, two = desk.stage.standin(name="one", fault=first), desk.stage.standin(name="two", fault=second)
    desk.serve(one, two, targets={"one": opened(40), "two": opened(20)})
    desk.stage.ask()
    answer = desk.stage.ask(stream=stream)
    code = {503: "no_target_available", 429: "rate_limit_exceeded"}[status]
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert soonest - 5 <= int(answer.headers["retry-after"]) <= soonest
    assert (soonest - 5) * 1000 <= int(answer.headers["retry-after-ms"]) <= soonest * 1000
    assert (answer.headers["x-should-retry"], answer.headers["x-router-attempts"]) == ("true", "0")
    assert (one.asked, two.asked) == (1, 1)


def test_the_one_that_is_throttled_first_hears_the_lowest_wait_too(desk):
    one, two = desk.stage.standin(name="one", fault=busy(50)), desk.stage.standin(name="two", fault=busy(30))
    desk.serve(one, two)
    answer = desk.stage.ask()
    assert (answer.status_code, answer.headers["x-router-attempts"]) == (429, "2")
    assert 25 <= int(answer.headers["retry-after"]) <= 30


def test_nobody_is_told_to_try_again_within_hours(desk):
    desk.serve(desk.stage.standin(name="one"))
    desk.isolate("one", seconds=7200)
    answer = desk.stage.ask()
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
    assert 7195 <= int(answer.headers["retry-after"]) <= 7200
