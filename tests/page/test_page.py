"""The page over HTTP: who sees what, what comes from outside has no power, filters, pages, following, failures."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest
from google.protobuf import json_format
from tests.gateway import until
from tests.page.serving import CALLERS, HTML, KEY_A, KEY_B, KEY_OPS, Served, serving
from tests.traces.memory import Memory, trace

from trunkline.v1 import message_pb2
from trunkline.v1.completion_pb2 import USAGE_SOURCE_ESTIMATED, USAGE_SOURCE_PARTIAL, USAGE_SOURCE_REPORTED
from trunkline.v1alpha import trace_pb2
from trunkline_server.access import Callers


def ids(text: str) -> list[int]:
    """The numbers of the calls that a list shows."""
    return [int(found, 16) for found in re.findall(r'href="/calls/cmpl_([0-9a-f]{32})"', text)]


def path(number: int, rest: str = "") -> str:
    return f"/calls/cmpl_{number:032x}{rest}"


async def signed_in(served: Served, key: str) -> SimpleCookie:
    form = {"key": key, "next": "/usage"}
    async with served.http.post(f"{served.address}/sign-in", data=form, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/usage")
        return SimpleCookie(answer.headers["Set-Cookie"])


# -- who sees what ----------------------------------------------------------------------------------------------------


async def test_without_keys_everybody_on_this_machine_sees_all() -> None:
    async with serving() as served:
        served.memory.add(trace(1), trace(2, caller="team-b"))
        status, text = await served.get("/")

    assert (status, ids(text)) == (200, [2, 1])
    assert "Sign out" not in text


async def test_a_key_sees_its_own_calls_and_an_operators_all() -> None:
    async with serving(callers=CALLERS) as served:
        served.memory.add(trace(1, caller="team-a"), trace(2, caller="team-b"), trace(3, caller=""))
        seen = {key: ids((await served.get("/", key))[1]) for key in (KEY_A, KEY_B, KEY_OPS)}
        other = await served.get("/?caller=team-b", KEY_A)
        for rest in ("", "/record.json", "/attempts/1/request"):
            assert (await served.get(path(2, rest), KEY_A))[0] == 404
            assert (await served.get(path(2, rest), KEY_OPS))[0] == 200
        usage = (await served.get("/usage?range=30d", KEY_A))[0]

    assert seen == {KEY_A: [1], KEY_B: [2], KEY_OPS: [3, 2, 1]}
    assert ids(other[1]) == []
    assert usage == 200


async def test_the_sums_are_those_of_ones_own_calls() -> None:
    now = datetime.now(UTC)
    async with serving(callers=CALLERS) as served:
        for number, caller, tokens in ((1, "team-a", 1_111), (2, "team-b", 2_222)):
            one = trace(number, caller=caller)
            one.start_time.FromDatetime(now - timedelta(hours=2))
            one.usage.input_tokens = tokens
            served.memory.add(one)
        _, own = await served.get("/usage", KEY_A)
        _, all_of_them = await served.get("/usage", KEY_OPS)

    assert "1,111" in own
    assert "2,222" not in own
    assert "3,333" in all_of_them


async def test_strangers_are_asked_for_a_key() -> None:
    async with serving(callers=CALLERS) as served:
        served.memory.add(trace(1))
        for where in ("/?model=a&status=ok", path(1), path(1, "/record.json"), "/usage", "/tail"):
            async with served.http.get(served.address + where, headers=HTML, allow_redirects=False) as answer:
                assert answer.status == 303
                to, _, query = answer.headers["Location"].partition("?")
                assert (to, parse_qs(query)) == ("/sign-in", {"next": [where]})
            async with served.http.get(served.address + where, headers={"Authorization": "Bearer no"}) as answer:
                assert answer.status == 401
                assert "cmpl_" not in await answer.text()
        assert (await served.get("/sign-in"))[0] == 200
        assert (await served.get("/static/page.css"))[0] == 200


async def test_a_key_is_entered_once_and_a_cookie_that_no_script_reads_stands_for_it() -> None:
    async with serving(callers=CALLERS) as served:
        served.memory.add(trace(1, caller="team-a"), trace(2, caller="team-b"))
        cookie = (await signed_in(served, KEY_A))["trunkline_session"]
        _, text = await served.get("/", Cookie=f"trunkline_session={cookie.value}")
        made_up = await served.get("/", Cookie="trunkline_session=" + "x" * 43)
        async with served.http.post(
            f"{served.address}/sign-out",
            headers={"Cookie": f"trunkline_session={cookie.value}"},
            allow_redirects=False,
        ) as answer:
            assert answer.status == 303
        after, _ = await served.get("/", Cookie=f"trunkline_session={cookie.value}")

    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert KEY_A not in cookie.value
    assert ids(text) == [1]
    assert (made_up[0], after) == (303, 303)


async def test_a_wrong_key_is_told_without_saying_how_close_it_came() -> None:
    async with serving(callers=CALLERS) as served:
        form = {"key": KEY_A[:-1], "next": "/"}
        async with served.http.post(f"{served.address}/sign-in", data=form) as answer:
            text = unescape(await answer.text())

            assert answer.status == 401
    assert "not one of the server's configured callers' keys" in text
    assert KEY_A[:-1] not in text


@pytest.mark.parametrize("goal", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_signing_in_leads_nowhere_else(goal: str) -> None:
    async with serving(callers=CALLERS) as served:
        form = {"key": KEY_A, "next": goal}
        async with served.http.post(f"{served.address}/sign-in", data=form, allow_redirects=False) as answer:
            assert answer.headers["Location"] == "/"


# -- what comes from outside has no power -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "x@127.0.0.1", ""])
async def test_a_name_that_leads_here_by_somebody_elses_doing_gets_no_answer(host: str) -> None:
    async with serving() as served:
        served.memory.add(trace(1))
        status, text = await served.get("/", Host=host)

    assert status == 421 or (not host and status == 400)
    assert "cmpl_" not in text


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8080", "10.0.0.7", "Traces.Example"])
async def test_names_of_this_machine_and_those_configured_do(host: str) -> None:
    async with serving(names=["traces.example"]) as served:
        assert (await served.get("/", Host=host))[0] == 200


async def test_a_form_of_another_site_is_refused() -> None:
    async with serving(callers=CALLERS) as served:
        origin = {"Origin": "https://evil.example"}
        async with served.http.post(f"{served.address}/sign-in", data={"key": KEY_A}, headers=origin) as answer:
            assert answer.status == 403


async def test_every_answer_lets_nothing_in_from_elsewhere() -> None:
    async with serving(callers=CALLERS) as served:
        served.memory.add(trace(1, caller="team-a"))
        for where in ("/", path(1), "/usage", "/sign-in", "/static/page.js", "/nothing", path(9), "/?cost=x"):
            headers = {**HTML, "Authorization": f"Bearer {KEY_A}"}
            async with served.http.get(served.address + where, headers=headers) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert answer.headers["Cache-Control"] in ("no-store", "no-cache")
                text = await answer.text()
                assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)
                assert not re.search(r"<script(?! src=\"/static/page.js\")|<style|\sstyle=|\son\w+=", text)


EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"


def everywhere(message: Any) -> None:
    """Puts EVIL into every text of a message, however deep."""
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            continue
        if field.message_type is not None and message.HasField(field.name):
            everywhere(getattr(message, field.name))
        elif field.type == field.TYPE_STRING and field.containing_oneof is None:
            setattr(message, field.name, EVIL)


async def test_what_was_said_is_shown_and_never_run() -> None:
    one = trace(1, said=EVIL)
    one.status.code, one.status.reason = 13, "INTERNAL"
    everywhere(one)
    one.name = f"traces/cmpl_{1:032x}"
    one.labels[EVIL] = EVIL
    for attempt in one.attempts:
        everywhere(attempt)
    parts = one.completion_spec.messages[0].parts
    said = message_pb2.ContentPart(text=message_pb2.Text(text=EVIL))
    parts.add(tool_call=message_pb2.ToolCall(id=EVIL, name=EVIL, arguments_json=EVIL))
    parts.add(tool_result=message_pb2.ToolResult(name=EVIL, parts=[said]))
    parts.add(reasoning=message_pb2.Reasoning(text=EVIL))
    parts.add(refusal=message_pb2.Refusal(text=EVIL))
    parts.add(opaque=message_pb2.OpaqueBlock(type=EVIL, json=EVIL))
    parts.add(image=message_pb2.Media(data=b"<svg onload=alert(1)>", mime_type="image/svg+xml"))
    parts.add(image=message_pb2.Media(uri="https://evil.example/pixel.png", mime_type="image/png"))
    async with serving() as served:
        served.memory.add(one)
        shown = [(await served.get(where))[1] for where in ("/", path(1), f"/?error={EVIL}&label={EVIL}")]

    for text in shown:
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "49" not in re.sub(r"\d{2}:\d{2}:\d{2}", "", text.split("&lt;img src=x")[0][-40:])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown[1]
    assert "<svg onload" not in shown[1]
    assert 'src="https://evil.example' not in shown[1]


async def test_a_picture_is_shown_from_the_record_itself() -> None:
    one = trace(1)
    one.completion_spec.messages[0].parts.add(image=message_pb2.Media(data=b"\x89PNG", mime_type="image/png"))
    async with serving() as served:
        served.memory.add(one)
        _, text = await served.get(path(1))

    assert 'src="data:image/png;base64,iVBORw=="' in text


async def test_a_body_is_downloaded_as_it_is_and_never_shown_as_a_page() -> None:
    one = trace(1)
    one.attempts[0].response.body = b"<script>alert(1)</script>\xff"
    one.attempts[0].response.content_type = "text/html"
    async with serving() as served:
        served.memory.add(one)
        async with served.http.get(served.address + path(1, "/attempts/1/response")) as answer:
            body = await answer.read()
            headers = answer.headers
        missing = (await served.get(path(1, "/attempts/2/response")))[0]
        wrong = (await served.get(path(1, "/attempts/1/endpoint")))[0]

    assert body == b"<script>alert(1)</script>\xff"
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith("attachment; ")
    assert "sandbox" in headers["Content-Security-Policy"]
    assert (missing, wrong) == (404, 404)


# -- lists ------------------------------------------------------------------------------------------------------------


async def test_pages_go_back_without_a_gap_while_calls_come_in() -> None:
    now = datetime.now(UTC)

    def recent(number: int) -> trace_pb2.Trace:
        one = trace(number)
        one.start_time.FromDatetime(now - timedelta(minutes=30) + timedelta(seconds=number))
        return one

    async with serving() as served:
        served.memory.add(*(recent(number) for number in range(130)))
        where, found = "/?range=1h", []
        while where:
            _, text = await served.get(where)
            found += ids(text)
            served.memory.add(recent(1000 + len(found)))
            older = re.search(r'rel="next" href="([^"]+)"', text)
            where = unescape(older[1]) if older else ""

    assert found == list(range(129, -1, -1))


async def test_a_page_of_another_list_leads_to_the_first() -> None:
    async with serving() as served:
        served.memory.add(*(trace(number) for number in range(60)))
        _, text = await served.get("/")
        token = re.search(r"after=([\w-]+)", text)
        assert token
        async with served.http.get(
            f"{served.address}/?model=x&after={token[1]}", headers=HTML, allow_redirects=False
        ) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/?model=x")


_SOUGHT = trace(7, provider="anthropic", model="claude", method="StreamCompletion", labels={"team": "blue", "env": "x"})
_SOUGHT.status.code, _SOUGHT.status.reason = 8, "LLM_RATE_LIMITED"
_SOUGHT.status.message = "The quota is spent"
_SOUGHT.usage.cost_nano_usd = 5_000_000
_SOUGHT.timing.total.seconds = 3
_SOUGHT.caller = "team-z"


@pytest.mark.parametrize(
    "query",
    [
        "model=claude", "status=failed", "status=LLM_RATE_LIMITED", "error=quota", "provider=anthropic",
        "caller=team-z", "method=StreamCompletion", "label=team%3Dblue,+env%3Dx", "cost=0.005", "duration=2.5",
        "since=2023-11-14T22:13:26Z", "provider=anthropic&status=failed&cost=0.001",
    ],
)  # fmt: skip
async def test_a_filter_finds_what_it_says(query: str) -> None:
    async with serving() as served:
        served.memory.add(trace(1), trace(2), _SOUGHT)
        status, text = await served.get(f"/?{query}")
        _, before = await served.get("/?until=2023-11-14T22:13:26Z")

    assert (status, ids(text)) == (200, [7])
    assert ids(before) == [2, 1]


async def test_every_mistake_of_a_filter_is_told_at_its_field() -> None:
    query = "range=1y&status=bad&error=%3F&label=blue&cost=much&duration=-1&since=now&provider=" + "p" * 65
    async with serving() as served:
        status, text = await served.get(f"/?{query}")

    assert status == 400
    told = dict(re.findall(r'<em id="wrong-(\w+)">([^<]+)</em>', text))
    assert set(told) == {"error", "label", "cost", "duration", "since", "provider"}
    assert "The filter has a mistake." in text


async def test_a_list_without_calls_says_why() -> None:
    async with serving() as served:
        _, new = await served.get("/")
        _, none = await served.get("/?model=x")

    assert "No calls yet" in new
    assert "No call matches" in none


# -- one call ---------------------------------------------------------------------------------------------------------


async def test_the_whole_record_is_there_as_json() -> None:
    async with serving() as served:
        served.memory.add(trace(1))
        _, text = await served.get(path(1, "/record.json"))

    assert json_format.Parse(text, trace_pb2.Trace()) == trace(1)
    assert json.loads(text)["askedModel"] == "fast"


async def test_a_record_without_content_says_that_it_is_not_kept() -> None:
    one = trace(1)
    one.completion_spec.ClearField("messages")
    one.attempts[0].ClearField("request")
    async with serving() as served:
        served.memory.add(one)
        _, text = await served.get(path(1))

    assert "What was said is not kept." in text


@pytest.mark.parametrize("kind", ["embeddings", "tokens", "open", "refused", "bare"])
async def test_calls_of_every_kind_can_be_shown(kind: str) -> None:
    one = trace(1)
    match kind:
        case "embeddings":
            one.embedding_spec.inputs.add(text="Hi")
            one.embeddings.embeddings.add()
        case "tokens":
            one.counted_tokens = 12
        case "open":
            one.ClearField("status")
            one.state = trace_pb2.TRACE_STATE_INTERRUPTED
        case "refused":
            del one.attempts[:]
            one.status.code, one.status.reason = 16, "CALLER_UNAUTHENTICATED"
        case "bare":
            one = trace_pb2.Trace(name=one.name)
    async with serving() as served:
        served.memory.add(one)
        status, text = await served.get(path(1))
        listed, _ = await served.get("/")

    assert (status, listed) == (200, 200)
    expected = {
        "embeddings": "1 vector.", "tokens": "12 tokens.", "open": "interrupted", "refused": "CALLER_UNAUTHENTICATED",
        "bare": "unspecified",
    }  # fmt: skip
    assert expected[kind] in text


# -- usage ------------------------------------------------------------------------------------------------------------


async def test_the_plots_add_up_and_lead_to_their_calls() -> None:
    now = datetime.now(UTC)
    async with serving() as served:
        for number in range(24):
            one = trace(number, model=f"model-{number % 10}")
            one.start_time.FromDatetime(now - timedelta(hours=number))
            one.usage.input_tokens, one.usage.output_tokens = 100, 10
            one.usage.cost_nano_usd = 10**7 * (1 + number % 10)
            served.memory.add(one)
        status, text = await served.get("/usage?range=24h")
        link = unescape(re.findall(r'<a href="(/\?[^"]*since=[^"]*)"', text)[-1])
        _, calls = await served.get(link)

    assert status == 200
    assert "$1.20" in text
    assert ">2,400<" in text
    # Seven models have a colour of their own, the other three share one.
    assert len(set(re.findall(r'<i class="(c\d)">', text))) == 8
    assert "others" in text
    # The last spans end now: one call each, of the hour that the link names.
    assert len(ids(calls)) == 1


async def test_what_no_provider_counted_is_summed_and_drawn_apart_and_marked_in_the_list() -> None:
    now = datetime.now(UTC)
    async with serving() as served:
        for number, source in enumerate((USAGE_SOURCE_REPORTED, USAGE_SOURCE_PARTIAL, USAGE_SOURCE_ESTIMATED), 1):
            one = trace(number)
            one.start_time.FromDatetime(now - timedelta(hours=2))
            one.usage.input_tokens, one.usage.output_tokens = 1_000 * number, 100 * number
            one.usage.cost_nano_usd, one.usage.source = number * 10**9, source
            served.memory.add(one)
        _, text = await served.get("/usage?range=24h")
        _, listed = await served.get("/")

    # In the tiles and in the table.
    for counted, estimated in (("$3.00", "$3.00"), ("3,000", "3,000"), ("300", "300")):
        assert text.count(f'>{counted} <small class="estimate">+ {estimated} estimated</small>') == 2
    boxes = re.findall(r'<rect class="(c0[^"]*)"[^>]*><title>[^:]*: ([^<]*)</title>', text)
    assert boxes == [
        ("c0", "$3.00"), ("c0 estimated", "$3.00, estimated"),
        ("c0", "3.3k"), ("c0 estimated", "3.3k, estimated"),
        ("c0", "3"),
    ]  # fmt: skip
    assert re.findall(r"≈ [$\d.,]+", listed) == ["≈ 3,000", "≈ $3.00"]


async def test_a_time_without_calls_is_drawn_empty() -> None:
    async with serving() as served:
        status, text = await served.get("/usage?range=nonsense")

    assert status == 200
    assert text.count("Nothing in this time.") == 3


# -- following --------------------------------------------------------------------------------------------------------


async def read_event(content: aiohttp.StreamReader) -> str:
    """The next event or comment."""
    async with asyncio.timeout(10):
        return (await content.readuntil(b"\n\n")).decode()


async def test_calls_are_told_as_they_end_with_the_filter_and_to_those_who_may_see_them() -> None:
    async with serving(callers=CALLERS) as served:
        headers = {"Authorization": f"Bearer {KEY_A}"}
        where = f"{served.address}/tail?status=failed&range=15m"
        async with served.http.get(where, headers=headers) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.headers["Content-Security-Policy"]
            assert await read_event(answer.content) == ": following\n\n"
            bad, theirs = trace(2, caller="team-a"), trace(3, caller="team-b")
            for one in (bad, theirs):
                one.status.code, one.status.reason = 8, EVIL
            served.ended.tell(trace(1, caller="team-a"), theirs, bad)
            event = await read_event(answer.content)
        await until(lambda: not served.ended.followed)

    assert event.startswith("event: call\ndata: <tr")
    assert ids(event) == [2]
    assert "<script>alert" not in event


async def test_following_ends_with_who_is_let_in_no_more_and_with_the_session() -> None:
    async with serving(callers=Callers({"team-a": KEY_A, "ops": KEY_OPS}, operators=["ops"])) as served:
        stays, leaves = [header(await signed_in(served, KEY_A)) for _ in range(2)]
        key = {"Authorization": f"Bearer {KEY_A}"}

        async def tail(headers: dict[str, str]) -> aiohttp.ClientResponse:
            answer = await served.http.get(f"{served.address}/tail", headers=headers)
            assert await read_event(answer.content) == ": following\n\n"
            return answer

        first, second, third = await tail(stays), await tail(leaves), await tail(key)
        await served.http.post(f"{served.address}/sign-out", headers=leaves, allow_redirects=False)
        left = await whole(second)
        served.ended.tell(trace(1, caller="team-a"))
        told = [ids(await read_event(answer.content)) for answer in (first, third)]
        # The same ones, read again, end nothing.
        served.page.become(Callers({"team-a": KEY_A, "ops": KEY_OPS}, operators=["ops"]))
        served.ended.tell(trace(2, caller="team-a"))
        told += [ids(await read_event(answer.content)) for answer in (first, third)]
        served.page.become(Callers({"ops": KEY_OPS}, operators=["ops"]))
        served.ended.tell(trace(3, caller="team-a"))
        ended = [await whole(answer) for answer in (first, third)]
        again = await served.get("/tail", Accept="text/event-stream", **stays)
        await until(lambda: not served.ended.followed)

    assert left.startswith("event: ended\n")
    assert told == [[1], [1], [2], [2]]
    assert all(text.startswith("event: ended\n") and not ids(text) for text in ended)
    assert again[0] == 401


def header(cookie: SimpleCookie) -> dict[str, str]:
    return {"Cookie": cookie.output(attrs=[], header="").strip()}


async def whole(answer: aiohttp.ClientResponse) -> str:
    """What still comes, to its end."""
    async with asyncio.timeout(10):
        return (await answer.content.read()).decode()


async def test_without_a_feed_following_is_refused_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline_server.traces.following._OPENING", 0.05)
    async with serving() as served:
        served.ended.down = True
        status, text = await served.get("/tail")

    assert status == 503
    assert "cannot be followed" in text


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_a_backend_that_is_down_is_told_and_the_next_one_answers() -> None:
    first, second = Memory(), Memory()
    first.fail()
    second.add(trace(1))
    async with serving(backends={"postgresql": first, "sqlite": second}) as served:
        fine = await served.get("/")
        second.fail()
        pages = [await served.get(where) for where in ("/", path(1), "/usage")]

    assert fine[0] == 200
    assert "Answered by sqlite" in fine[1]
    for status, text in pages:
        assert status == 503
        assert "no backend of traces can be reached" in text


@pytest.mark.parametrize("where", ["/calls/none", "/calls/..%2f..%2fetc", "/static/..%2fpage.py", "/nothing"])
async def test_what_is_not_there_is_not_found(where: str) -> None:
    async with serving() as served:
        assert (await served.get(where))[0] == 404


async def test_nothing_can_be_changed() -> None:
    async with serving() as served:
        served.memory.add(trace(1))
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            async with served.http.request(method, served.address + path(1)) as answer:
                assert answer.status == 405
        assert len(served.memory.records) == 1
