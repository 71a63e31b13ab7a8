"""The workers and replicas that share a Redis: what they keep there together, and what they ask each other.

Nothing here waits for long, whatever Redis does: a command that has no answer in time raises `Away`, and so do all
others at once, until the connection that listens hears of Redis again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: Answers a question. The asker gets an empty answer for a question whose answer fails.
Answerer: TypeAlias = Callable[[bytes], Awaitable[bytes]]
#: Hears what another worker tells. What it cannot take it raises.
Hearer: TypeAlias = Callable[[bytes], None]
#: Told what happens to the connection, by name.
Told: TypeAlias = Callable[..., None]

#: Wait before the connection that listens is made again.
_RECONNECT = (0.1, 2.0)
#: A worker that nobody can reach is looked for a second time after so long: it may be connecting again.
_SECOND_LOOK = 0.3
#: An answer of more bytes lies in a key instead of going past every buffer of Redis.
_INLINE = 8 * 1024
#: Seconds for which such a key waits.
_FETCH_WITHIN = 20
#: The connection that listens looks around so often, asks after so much silence whether Redis is there, and is given up
#: after so much.
_LOOK, _SILENCE, _DEAD = 1.0, 5.0, 12.0


class Away(Exception):  # a state that passes
    """Redis does not answer."""


class _Late(Away):
    """Redis answers, but who was asked does not."""


class Gone(Exception):  # an answer
    """There is no such worker any more."""


class Message(msgspec.Struct, array_like=True):
    """What goes from one worker to another."""

    #: Name of what is asked or told; empty: an answer.
    kind: str
    #: The asker's number of the question; 0: nothing is asked, all are told.
    token: int
    #: Who wants to know, or has answered.
    sender: str
    body: bytes = b""
    #: The answer lies under this key.
    key: str = ""


@dataclass(slots=True)
class _Question:
    """Waits for so many answers."""

    wanted: int
    enough: Callable[[bytes], bool]
    answers: list[bytes] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, answer: bytes) -> None:
        self.answers.append(answer)
        if len(self.answers) >= self.wanted or self.enough(answer):
            self.done.set()


class Fleet:
    """One worker among others. `start` it before use and close it; used by one event loop."""

    def __init__(
        self, url: str, *, prefix: str, patience: float, ca_file: str | None = None, told: Told = lambda *_, **__: None
    ) -> None:
        """`patience`: seconds for a command; `told`: hears "redis away" and "redis back". Raises ValueError for a URL
        that cannot be used, and for a missing package.
        """
        self.worker = os.urandom(8).hex()
        self.patience = patience
        self._prefix = prefix
        self._told = told
        self._redis: Redis = _client(url, patience, ca_file)
        self._answerers: dict[str, Answerer] = {}
        self._hearers: dict[str, Hearer] = {}
        self._questions: dict[int, _Question] = {}
        self._tokens = 0
        self._away = False
        self._listening: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[Any]] = set()
        self._subscribed = asyncio.Event()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Message).decode

    def key(self, *names: str) -> str:
        return ":".join((self._prefix, *names))

    def answers(self, kind: str, answerer: Answerer) -> None:
        """This worker answers questions of a kind."""
        self._answerers[kind] = answerer

    def hears(self, kind: str, hearer: Hearer) -> None:
        """This worker hears what the others tell of a kind."""
        self._hearers[kind] = hearer

    async def start(self) -> None:
        """Begins to listen; returns when others can ask, or when Redis does not answer in time."""
        self._listening = asyncio.get_running_loop().create_task(self._listen())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._subscribed.wait(), self.patience)

    async def aclose(self) -> None:
        tasks = [*self._answering, *([self._listening] if self._listening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Exception):
            async with asyncio.timeout(self.patience):
                await self._redis.connection_pool.aclose()

    # -- what is kept together ----------------------------------------------------------------------------------------

    async def run(self, *commands: Sequence[Any]) -> list[Any]:
        """The results of commands, made in one go and as one. Raises Away."""
        if self._away:
            raise Away
        try:
            async with asyncio.timeout(self.patience):
                if len(commands) == 1:
                    found = [await self._redis.execute_command(*commands[0])]  # type: ignore[no-untyped-call]  # of theirs
                else:
                    pipeline = self._redis.pipeline(transaction=True)
                    for command in commands:
                        pipeline.execute_command(*command)
                    found = await pipeline.execute()
        except Exception as error:
            # Of the package, of the network, of time: they mean the same here.
            self._mark(away=True, error=error)
            raise Away from error
        return found

    # -- what is told -------------------------------------------------------------------------------------------------

    async def tell(self, kind: str, body: bytes) -> None:
        """All others hear it that listen now. Raises Away."""
        await self.run(("PUBLISH", self.key("all"), self._encode(Message(kind, 0, self.worker, body))))

    # -- what is asked ------------------------------------------------------------------------------------------------

    async def ask(self, worker: str, kind: str, body: bytes, *, within: float) -> bytes:
        """What a worker answers. Raises Gone; and Away if Redis, or twice the worker, does not answer within so many
        seconds.
        """
        channel = self.key("worker", worker)
        for last in (False, True):
            try:
                answers = await self._ask(channel, kind, body, within, lambda _: True)
            except _Late:
                # Is there still somebody who could answer?
                if last:
                    raise
                continue
            if answers:
                return answers[0]
            if not last:
                # It may be connecting again just now.
                await asyncio.sleep(_SECOND_LOOK)
        raise Gone

    async def ask_all(
        self, kind: str, body: bytes, *, within: float, enough: Callable[[bytes], bool]
    ) -> Sequence[bytes]:
        """What all workers answer, this one too, until one says `enough`. Raises Away, also if any does not answer."""
        return await self._ask(self.key("all"), kind, body, within, enough)

    async def _ask(
        self, channel: str, kind: str, body: bytes, within: float, enough: Callable[[bytes], bool]
    ) -> list[bytes]:
        self._tokens += 1
        token = self._tokens
        question = self._questions[token] = _Question(1_000_000, enough)
        try:
            [heard] = await self.run(("PUBLISH", channel, self._encode(Message(kind, token, self.worker, body))))
            if not heard:
                return []
            question.wanted = heard
            if len(question.answers) < heard:
                try:
                    async with asyncio.timeout(within):
                        await question.done.wait()
                except TimeoutError as error:
                    raise _Late from error
            return question.answers
        finally:
            del self._questions[token]

    # -- the connection that listens ----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        wait, longest = _RECONNECT
        while True:
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                async with asyncio.timeout(max(self.patience, 1.0)):
                    await pubsub.subscribe(self.key("worker", self.worker), self.key("all"))
                self._subscribed.set()
                self._mark(away=False)
                wait, _ = _RECONNECT
                await self._hear(pubsub)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  # as in `run`
                self._subscribed.clear()
                self._mark(away=True, error=error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest)
            finally:
                with suppress(Exception):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # of theirs

    async def _hear(self, pubsub: Any) -> None:
        """Takes messages until the connection breaks."""
        heard = time.monotonic()
        while True:
            message = await pubsub.get_message(timeout=_LOOK)
            now = time.monotonic()
            if message is not None:
                heard = now
                self._mark(away=False)
                if message["type"] == "message":
                    self._take(message["data"])
            elif now - heard > _DEAD:
                raise TimeoutError("Redis is silent")
            elif self._away or now - heard > _SILENCE:
                await pubsub.ping()

    def _take(self, data: bytes) -> None:
        try:
            message = self._decode(data)
        except msgspec.MsgspecError:
            return  # of another program that uses the same prefix
        if message.kind and not message.token:
            self._hear_of(message)
        elif message.kind:
            self.spawn(self._answer(message))
        elif message.key:
            self.spawn(self._fetch(message))
        else:
            self._answered(message.token, message.body)

    def _hear_of(self, message: Message) -> None:
        hearer = self._hearers.get(message.kind)
        if hearer is None or message.sender == self.worker:
            return
        try:
            hearer(message.body)
        except Exception as error:  # noqa: BLE001  # of another version, perhaps: the next message may be good
            self._told("fleet", kind=message.kind, error=repr(error))

    def _answered(self, token: int, body: bytes) -> None:
        question = self._questions.get(token)
        if question is not None:
            question.take(body)

    async def _answer(self, asked: Message) -> None:
        answerer = self._answerers.get(asked.kind)
        answer = b""
        if answerer is not None:
            try:
                answer = await answerer(asked.body)
            except Exception as error:  # noqa: BLE001  # the asker is not left waiting
                self._told("fleet", kind=asked.kind, error=repr(error))
        reply, commands = Message("", asked.token, self.worker, answer), []
        if len(answer) > _INLINE:
            key = self.key("answer", os.urandom(12).hex())
            commands.append(("SET", key, answer, "EX", _FETCH_WITHIN))
            reply = Message("", asked.token, self.worker, key=key)
        with suppress(Away):
            await self.run(*commands, ("PUBLISH", self.key("worker", asked.sender), self._encode(reply)))

    async def _fetch(self, message: Message) -> None:
        if message.token not in self._questions:
            return
        with suppress(Away):
            [data] = await self.run(("GETDEL", message.key))
            self._answered(message.token, data or b"")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something that nobody waits for, no longer than this worker."""
        task = asyncio.get_running_loop().create_task(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _mark(self, *, away: bool, error: Exception | None = None) -> None:
        if away != self._away:
            self._away = away
            if away:
                self._told("redis away", error=f"{type(error).__name__}: {error}")
            else:
                self._told("redis back")


def _client(url: str, patience: float, ca_file: str | None) -> Redis:
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ValueError("the package redis is missing: install trunkline-server[redis]") from None
    more: dict[str, Any] = {"ssl_ca_certs": ca_file} if ca_file else {}
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=32,
        timeout=patience,
        socket_connect_timeout=patience,
        # Commands are bounded in `run`; the connection that listens has no bound.
        socket_timeout=None,
        # Once more over a new connection: one that was kept may have died meanwhile.
        retry=Retry(NoBackoff(), 1),
        **more,
    )
    return Redis(connection_pool=pool)
