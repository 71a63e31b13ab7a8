"""Which target is tried first."""

from __future__ import annotations

import asyncio
import collections
import math
import time
from random import Random
from typing import Any

import pytest
from tests.gateway import create, failing, stream, until
from tests.routing.places import Places, fails, places, says, target
from tests.upstream import Exchange, chat_events

from trunkline.v1alpha import route_pb2
from trunkline_server import providers
from trunkline_server.errors import GatewayError
from trunkline_server.providers import ProviderOptions
from trunkline_server.routing import strategy
from trunkline_server.routing.breaker import OPEN
from trunkline_server.routing.check import mistakes
from trunkline_server.routing.health import Healths
from trunkline_server.routing.strategy import Moment, sticky
from trunkline_server.routing.table import Candidate, Table


def table(*routes: route_pb2.Route, names: str = "a b c") -> Table:
    made = {name: providers.build(ProviderOptions(name, "fake")) for name in names.split()}
    return Table(made, Healths(), routes=routes)


def route(*models: str, name: str = "r", **more: Any) -> route_pb2.Route:
    targets = [route_pb2.RouteTarget(model=model) for model in models]
    return route_pb2.Route(name=f"routes/{name}", targets=targets, **more)


def candidates(*weights: int) -> list[Candidate]:
    targets = [route_pb2.RouteTarget(model=f"a/{at}", weight=weight) for at, weight in enumerate(weights)]
    return list(table(route_pb2.Route(name="routes/r", targets=targets)).resolve("r").candidates)


def at(now: float = 0.0) -> Moment:
    return Moment(now, Random(1), streamed=True)


def test_weights_are_shares_of_the_calls() -> None:
    among, moment = candidates(1, 3, 6), at()
    counts = collections.Counter(strategy.weighted(among, moment).model for _ in range(10_000))

    assert {model: round(count / 1000) for model, count in counts.items()} == {"0": 1, "1": 3, "2": 6}


def test_the_least_loaded_has_the_fewest_calls_for_its_weight() -> None:
    among = candidates(1, 4)
    taken = []
    for _ in range(10):
        chosen = strategy.least_loaded(among, at())
        chosen.health.in_flight += 1
        taken.append(chosen.model)

    assert taken.count("1") == 8


def test_the_least_latency_counts_what_is_in_flight() -> None:
    slow, fast = among = candidates(1, 1)
    for candidate, seconds in ((slow, 0.3), (fast, 0.1)):
        candidate.health.streams.observe(seconds, 0)
    taken = []
    for _ in range(8):
        chosen = strategy.least_latency(among, at())
        chosen.health.in_flight += 1
        taken.append(chosen)

    assert (taken.count(fast), taken.count(slow)) == (6, 2)
    # Whole answers are another thing than first tokens.
    assert slow.health.wholes.ewma(0) is None


def test_a_target_of_which_nothing_is_known_is_asked_by_one_call_at_once() -> None:
    known, new = among = candidates(1, 1)
    known.health.streams.observe(0.1, 0)

    assert strategy.least_latency(among, at()) is new
    new.health.in_flight = 1
    assert strategy.least_latency(among, at()) is known


def test_the_cheapest_has_a_price() -> None:
    names = {name: providers.build(ProviderOptions(name, name, keys={"": "k"})) for name in ("openai", "anthropic")}
    told = route(
        "openai/nobody-knows-it", "anthropic/claude-opus-4-5", "openai/gpt-5-mini",
        strategy=route_pb2.ROUTE_STRATEGY_CHEAPEST,
    )  # fmt: skip
    found = Table(names, Healths(), routes=[told]).resolve("r").candidates

    assert found[0].price == math.inf
    assert strategy.cheapest(found, at()).model == "gpt-5-mini"


def test_the_same_label_goes_to_the_same_target_and_others_stay_when_one_goes() -> None:
    among = candidates(1, 1, 2, 1)
    labels = [f"session {number}" for number in range(2000)]
    before = {label: sticky(label)(among, at()) for label in labels}
    counts = collections.Counter(candidate.model for candidate in before.values())
    assert {model: round(count / 400) for model, count in counts.items()} == {"0": 1, "1": 1, "2": 2, "3": 1}

    gone = among.pop(1)
    moved = [label for label in labels if sticky(label)(among, at()) is not before[label]]
    assert moved == [label for label in labels if before[label] is gone]


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "leads_to"),
    [
        ("fast", "a/exact"),
        ("fast-one", "b/one-x"),
        ("fast-er-one", "c/one"),
        ("a/m", "a/m"),
        ("b/m", "c/m"),
        ("b/special", "a/special"),
        ("else", "a/else"),
    ],
)
def test_a_name_comes_before_a_pattern_and_a_longer_pattern_before_a_shorter(name: str, leads_to: str) -> None:
    made = table(
        route("a/exact", name="fast"),
        route("b/*-x", name="fast-*"),
        route("c/*", name="fast-er-*"),
        route("c/*", name="b/*"),
        route("a/special", name="b/special"),
        route("a/*", name="*"),
    )
    [candidate] = made.resolve(name).candidates

    assert f"{candidate.provider.name}/{candidate.model}" == leads_to


def test_a_name_that_leads_nowhere_says_what_there_is() -> None:
    for name in ("nobody", "nobody/m", "fast-", "a/", "/"):
        with pytest.raises(GatewayError) as told:
            table(route("a/*", name="fast-*")).resolve(name)
        assert told.value.reason == "MODEL_NOT_FOUND"
        assert "a, b, c" in str(told.value)


def test_names_that_callers_make_up_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline_server.routing.table._KEPT", 10)
    made = table()
    for number in range(100):
        made.resolve(f"a/{number}")

    assert len(made._known) <= 10


def test_everything_that_is_wrong_with_a_route_is_told() -> None:
    wrong = route_pb2.Route(
        name="routes/a b",
        targets=[
            route_pb2.RouteTarget(model="nobody/m", weight=0, priority=-1, credential="x"),
            route_pb2.RouteTarget(model="none"),
            route_pb2.RouteTarget(model="a/*"),
        ],
        strategy=99,  # type: ignore[arg-type]  # of a newer server
        breaker=route_pb2.BreakerPolicy(failure_ratio=2, min_attempts=0, consecutive_failures=0, max_ejected=2),
    )
    wrong.retry_policy.max_attempts = 0
    wrong.hedge.after.seconds = 0
    wrong.breaker.window.seconds = 0

    assert [".".join(path) for path, _ in mistakes(wrong, {"a": 1}, {})] == [
        "name", "targets.0.model", "targets.0.credential", "targets.0.weight", "targets.0.priority", "targets.1.model",
        "targets.2.model", "strategy", "retry_policy.max_attempts", "breaker.consecutive_failures",
        "breaker.min_attempts", "breaker.failure_ratio", "breaker.max_ejected", "breaker.window", "hedge.after",
    ]  # fmt: skip


# -- through a server -------------------------------------------------------------------------------------------------


async def test_a_lower_priority_waits_for_the_others_to_fail() -> None:
    targets = [target(0, priority=1), target(1), target(2)]
    async with places(says("x"), fails(500), fails(500), route={"targets": targets, "strategy": "weighted"}) as at_:
        answer = await at_.ask("unary")

    assert (answer.provider, at_.asked) == ("p0", [1, 1, 1])


async def test_calls_with_a_label_stay_together_while_their_target_is_well() -> None:
    how = {"strategy": "weighted", "sticky_label": "session"}
    async with places(says("x"), says("x"), says("x"), route=how) as at_:
        first = [(await at_.ask("unary", labels={"session": "mine"})).provider for _ in range(6)]
        others = {(await at_.ask("unary", labels={"session": str(n)})).provider for n in range(40)}
        at_.ups[int(first[0][1])].script = fails(500)
        moved = [(await at_.ask("unary", labels={"session": "mine"})).provider for _ in range(2)]

    assert len(set(first)) == 1
    assert others == {"p0", "p1", "p2"}
    assert len(set(moved)) == 1
    assert moved[0] != first[0]


async def test_defaults_of_a_route_are_below_what_the_call_says() -> None:
    async with places(says("x"), route={"defaults": {"temperature": 0.25, "seed": 5}}) as at_:
        await at_.ask("unary", params={"seed": 6})
        body = at_.ups[0].exchanges[0].json

    assert (body["temperature"], body["seed"]) == (0.25, 6)


async def test_a_credential_of_the_call_leads_to_its_own_provider_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-of-a-team-0123456789")
    credentials = {"team": {"provider": "p1", "api_key_env": "TEAM_KEY"}}
    async with places(says("x"), says("x"), credentials=credentials) as at_:
        answer = await at_.ask("unary", options={"credential": "team"})
        failed = await failing(at_.gw.completions.CreateCompletion(create("p0/m", options={"credential": "team"})))

    assert (answer.provider, at_.asked) == ("p1", [0, 1])
    assert at_.ups[1].exchanges[0].headers["authorization"] == "Bearer sk-of-a-team-0123456789"
    assert failed.fields.keys() == {"options.credential"}


async def test_a_credential_of_a_target_is_used_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-of-a-team-0123456789")
    credentials = {"team": {"provider": "p0", "api_key_env": "TEAM_KEY"}}
    targets = [target(0), target(0, credential="team")]
    scripts = [fails(401)]
    async with places(*scripts, credentials=credentials, route={"targets": targets}) as at_:
        await at_.refused("unary")
        keys = [exchange.headers.get("authorization") for exchange in at_.ups[0].exchanges]

    assert keys == [None, "Bearer sk-of-a-team-0123456789"]


# -- a new table ------------------------------------------------------------------------------------------------------


def other(at_: Places, *scripts_of: int) -> Table:
    """A table with some of the providers, and a new one called p9 at the first upstream."""
    old = at_.gw.app.engine.table
    kept = {f"p{number}": old.providers[f"p{number}"] for number in scripts_of}
    new = providers.build(ProviderOptions("p9", "vllm", base_url=f"{at_.ups[0].url}/v1"))
    return Table({**kept, "p9": new}, Healths(), routes=[route("p9/m", name="fast")])


async def test_a_call_in_flight_keeps_its_table_and_those_that_come_see_the_new_one() -> None:
    more = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        events = chat_events("Hello", " there.")
        await exchange.head()
        await exchange.chunk(b"".join(events[:2]))
        await more.wait()
        for event in events[2:]:
            await exchange.chunk(event)
        await exchange.end()

    async with places(slow, says("x")) as at_:
        engine = at_.gw.app.engine
        reader = at_.gw.stream(stream("fast"))
        await reader.until("part_delta")
        at_.ups[0].script = says("new")
        engine.replace(other(at_, 1))
        answer = await at_.ask("unary")
        gone = await at_.refused("unary", "p0/m")
        more.set()
        await reader.rest()

    assert (reader.failed, reader.text) == (None, "Hello there.")
    assert (answer.text, answer.provider) == ("new", "p9")
    assert gone.reason == "MODEL_NOT_FOUND"


async def test_a_provider_is_closed_when_no_call_can_reach_it_any_more() -> None:
    closed: list[str] = []

    def watch(at_: Places, name: str) -> None:
        upstream_ = at_.gw.app.engine.providers[name].upstreams[""]
        close = upstream_.aclose

        async def watched() -> None:
            closed.append(name)
            await close()

        upstream_.aclose = watched  # type: ignore[method-assign]  # looks on

    async with places(lambda exchange: exchange.silence(), says("x")) as at_:
        for name in ("p0", "p1"):
            watch(at_, name)
        held = at_.gw.completions.CreateCompletion(create("fast"))
        waiting = asyncio.ensure_future(held)
        exchange = await at_.ups[0].next()
        at_.gw.app.engine.replace(other(at_, 1))
        at_.gw.app.engine.replace(other(at_))
        # p1 is in the first table as well, which has a call.
        assert closed == []
        held.cancel()
        await asyncio.wait({waiting})
        await exchange.gone()
        await until(lambda: sorted(closed) == ["p0", "p1"])

    assert sorted(closed) == ["p0", "p1"]


async def test_what_is_known_of_a_target_outlives_its_table() -> None:
    async with places(fails(500), says("x")) as at_:
        for _ in range(5):
            await at_.ask("unary")
        old = at_.gw.app.engine.table
        at_.gw.app.engine.replace(Table(old.providers, old.healths, routes=old.routes.values()))
        before = at_.asked
        await at_.ask("unary")
        fares = at_.gw.app.engine.table.resolve("fast").candidates[0].fares(time.monotonic())

    assert [now - then for now, then in zip(at_.asked, before, strict=True)] == [0, 1]
    assert (fares.target, fares.state, fares.attempts, fares.failures) == ("p0/m", OPEN, 5, 5)


async def test_a_provider_that_is_full_sends_calls_to_the_next_target() -> None:
    full = {"max_in_flight": 1, "max_waiting": 0}
    async with places(lambda exchange: exchange.silence(), says("x"), provider=full) as at_:
        held = at_.gw.completions.CreateCompletion(create("fast"))
        waiting = asyncio.ensure_future(held)
        await at_.ups[0].next()
        answer = await at_.ask("unary")
        alone = await at_.refused("unary", "p0/m")
        held.cancel()
        await asyncio.wait({waiting})

    assert (answer.provider, answer.attempts) == ("p1", 1)
    assert (alone.reason, alone.detail.attempts) == ("GATEWAY_OVERLOADED", [])
