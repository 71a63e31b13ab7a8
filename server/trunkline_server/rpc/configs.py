"""ConfigService: wire in, registry, wire out. Its calls leave no records of calls."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from trunkline.v1 import config_pb2
from trunkline.v1alpha import config_service_pb2 as pb
from trunkline.v1alpha import route_pb2
from trunkline_server.access import Callers
from trunkline_server.call import Call
from trunkline_server.errors import (
    AlreadyExists,
    CallerPermissionDenied,
    ConfigConflict,
    ConfigInUse,
    ResourceNotFound,
    UnsupportedParameter,
    Violation,
)
from trunkline_server.registry import Registry, sources
from trunkline_server.routing.check import Mistake, mistakes, mistakes_in_config
from trunkline_server.routing.table import CONFIGS, ROUTES, Table, params_from
from trunkline_server.rpc import validation
from trunkline_server.rpc.boundary import Boundary
from trunkline_server.rpc.findings import Findings
from trunkline_server.rpc.methods import Methods, accept

DEFAULT_PAGE, MAX_PAGE = 100, 1000

#: Reads the configuration file again: (setting that differ, those of them that need a restart). True: changes nothing.
Reload = Callable[[bool], Awaitable[tuple[list[str], list[str]]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is stored: configs or routes."""

    #: As the field of requests is called.
    field: str
    prefix: str
    type: type[Any]
    id: re.Pattern[str]
    id_help: str
    #: What is wrong with one, but for its defaults.
    mistakes: Callable[[Any, Table], Iterable[Mistake]]
    #: What is wrong with its defaults.
    defaults: Callable[[Any, str], Iterable[Violation]]
    kept: Callable[[Registry], Mapping[str, Any]]


def _route_defaults(route: route_pb2.Route, path: str) -> Iterable[Violation]:
    if not route.defaults_json:
        return ()
    try:
        params = params_from(route.defaults_json)
    except (json_format.ParseError, json.JSONDecodeError, TypeError, RecursionError) as error:
        return (Violation(f"{path}.defaults_json", f"is no JSON object of GenerationParams: {error}"),)
    return validation.of_params(params, f"{path}.defaults_json")


_CONFIG = Kind(
    "config",
    CONFIGS,
    config_pb2.LlmConfig,
    re.compile(r"[a-z][a-z0-9-]{0,62}"),
    'a lower-case letter, then at most 62 of a-z, 0-9 and "-"',
    lambda config, table: mistakes_in_config(config, table.providers, table.credentials),
    lambda config, path: validation.of_params(config.defaults, f"{path}.defaults"),
    lambda registry: registry.configs,
)
_ROUTE = Kind(
    "route",
    ROUTES,
    route_pb2.Route,
    re.compile(r"[A-Za-z0-9._:/@-]{0,255}[A-Za-z0-9._:/@*-]"),
    '1 to 256 of A-Z, a-z, 0-9 and "._:/@-", perhaps a "*" at the end',
    lambda route, table: mistakes(route, table.providers, table.credentials, table.configs.keys()),
    _route_defaults,
    lambda registry: {**registry.routes, **sources(registry.table)},
)


class ConfigMethods:
    """Serves trunkline.v1alpha.ConfigService."""

    NAME = "trunkline.v1alpha.ConfigService"

    def __init__(self, registry: Registry, callers: Callers, reload: Reload | None = None) -> None:
        """`reload`: None where there is no file to read again."""
        self._registry = registry
        self._callers = callers
        self._reload = reload

    def methods(self, boundary: Boundary) -> Methods:
        made: dict[str, Any] = {}
        for kind, word in ((_CONFIG, "Config"), (_ROUTE, "Route")):
            for verb, method in (
                ("Create", self._create),
                ("Get", self._get),
                ("Update", self._update),
                ("Delete", self._delete),
            ):
                made[f"{verb}{word}"] = self._method(boundary, f"{verb}{word}", method, kind)
            made[f"List{word}s"] = self._method(boundary, f"List{word}s", self._list, kind)
        made["ReloadConfig"] = boundary.unary("ReloadConfig", pb.ReloadConfigRequest, self.reload, recorded=False)
        return made

    def _method(self, boundary: Boundary, name: str, method: Any, kind: Kind) -> Any:
        answer = getattr(pb, f"{name}Response")

        async def handle(request: Any, call: Call) -> Any:
            return await method(request, call, kind, answer)

        return boundary.unary(name, getattr(pb, f"{name}Request"), handle, recorded=False)

    async def reload(self, request: pb.ReloadConfigRequest, call: Call) -> pb.ReloadConfigResponse:
        self._operator(call)
        accept(call, Findings(), request)
        if self._reload is None:
            text = "this server was started without a configuration file"
            raise UnsupportedParameter(text, violations=[Violation("", text)])
        changed, restart = await self._reload(request.validate_only)
        return pb.ReloadConfigResponse(changed=changed, need_restart=restart)

    # -- what both kinds do alike -------------------------------------------------------------------------------------

    async def _create(self, request: Any, call: Call, kind: Kind, answer: Any) -> Any:
        self._operator(call)
        await self._registry.refresh()
        id_field = f"{kind.field}_id"
        wanted = getattr(request, id_field)
        made = kind.type()
        made.CopyFrom(getattr(request, kind.field))
        made.name = kind.prefix + wanted
        findings = Findings()
        if not kind.id.fullmatch(wanted):
            findings.add(id_field, f"{wanted[:80]!r} is no id: {kind.id_help}")
        if not request.HasField(kind.field):
            findings.add(kind.field, "missing")
        self._check(made, kind, findings)
        accept(call, findings.closed(), request)
        if made.name in kind.kept(self._registry):
            raise AlreadyExists(f"there is a {made.name!r}", resource=(kind.field, made.name))
        _stamp(made, None)
        if not request.validate_only:
            await self._registry.put(made, expected=None)
        return answer(**{kind.field: made})

    async def _get(self, request: Any, call: Call, kind: Kind, answer: Any) -> Any:
        accept(call, _named(request.name, kind), request)
        found = await self._found(request.name, kind)
        made = answer(**{kind.field: found})
        if kind is _ROUTE and not request.name.endswith("*"):
            made.health.extend(_health(self._registry.table, request.name.removeprefix(ROUTES)))
        return made

    async def _list(self, request: Any, call: Call, kind: Kind, answer: Any) -> Any:
        findings = Findings()
        if not 0 <= request.page_size <= MAX_PAGE:
            findings.add("page_size", f"{request.page_size} is out of range: from 0 to {MAX_PAGE:,}")
        if request.page_token and not request.page_token.startswith(kind.prefix):
            findings.add("page_token", "is none of this list: send the next_page_token of an answer")
        accept(call, findings.closed(), request)
        await self._registry.refresh()
        kept = kind.kept(self._registry)
        names = sorted(name for name in kept if name > request.page_token)
        size = request.page_size or DEFAULT_PAGE
        page = names[:size]
        token = page[-1] if len(names) > size else ""
        return answer(**{f"{kind.field}s": [kept[name] for name in page], "next_page_token": token})

    async def _update(self, request: Any, call: Call, kind: Kind, answer: Any) -> Any:
        self._operator(call)
        given = getattr(request, kind.field)
        findings = _named(given.name, kind, f"{kind.field}.name")
        if request.HasField("update_mask"):
            for path in request.update_mask.paths:
                if not FieldMask(paths=[path]).IsValidForDescriptor(kind.type.DESCRIPTOR):
                    findings.add("update_mask", f"{path[:80]!r} is no field of {kind.type.DESCRIPTOR.name}")
        accept(call, findings.closed(), request)
        await self._registry.refresh()
        current = kind.kept(self._registry).get(given.name)
        if current is None and not request.allow_missing:
            raise ResourceNotFound(f"there is no {given.name!r}", resource=(kind.field, given.name))
        self._not_of_the_file(given.name, kind)
        if given.etag and (current is None or given.etag != current.etag):
            raise ConfigConflict(f"{given.name} was changed by somebody else meanwhile; read it again")
        made = kind.type()
        if current is not None and request.HasField("update_mask"):
            made.CopyFrom(current)
            request.update_mask.MergeMessage(given, made, True, True)
            made.name = given.name
        else:
            made.CopyFrom(given)
        findings = Findings()
        self._check(made, kind, findings)
        accept(call, findings.closed(), request)
        _stamp(made, current)
        if not request.validate_only:
            await self._registry.put(made, expected=None if current is None else current.etag)
        return answer(**{kind.field: made})

    async def _delete(self, request: Any, call: Call, kind: Kind, answer: Any) -> Any:
        self._operator(call)
        accept(call, _named(request.name, kind), request)
        await self._registry.refresh()
        current = kind.kept(self._registry).get(request.name)
        if current is None:
            if request.allow_missing:
                return answer()
            raise ResourceNotFound(f"there is no {request.name!r}", resource=(kind.field, request.name))
        self._not_of_the_file(request.name, kind)
        if request.etag and request.etag != current.etag:
            raise ConfigConflict(f"{request.name} was changed by somebody else meanwhile; read it again")
        users = sorted(
            route.name
            for route in self._registry.routes.values()
            if any(target.config == request.name for target in route.targets)
        )
        if users:
            raise ConfigInUse(
                f"{', '.join(users[:5])} {'leads' if len(users) == 1 else 'lead'} to {request.name}; change that first",
                resource=(kind.field, request.name),
            )
        if not request.validate_only:
            await self._registry.delete(request.name, expected=current.etag)
        return answer()

    # -- steps --------------------------------------------------------------------------------------------------------

    def _operator(self, call: Call) -> None:
        if not self._callers.is_operator(call.caller):
            raise CallerPermissionDenied("only operators may change the configuration: `operator: true` of a caller")

    def _not_of_the_file(self, name: str, kind: Kind) -> None:
        if self._registry.in_file(name) is not None:
            raise ConfigInUse(
                f"{name} is kept in the server's configuration file; change it there", resource=(kind.field, name)
            )

    def _check(self, made: Any, kind: Kind, findings: Findings) -> None:
        for path, text in kind.mistakes(made, self._registry.table):
            if path != ("name",):
                findings.add(".".join((kind.field, *path)), text)
        for violation in kind.defaults(made, kind.field):
            findings.add(violation.field, violation.description)
        for key, value in getattr(made, "labels", {}).items():
            if not 1 <= len(key) <= 64 or len(value) > 256:  # as labels of a call
                findings.add(f"{kind.field}.labels", f"{key[:64]!r}: keys of 1 to 64 characters, values of at most 256")

    async def _found(self, name: str, kind: Kind) -> Any:
        await self._registry.refresh()
        found = kind.kept(self._registry).get(name)
        if found is None:
            raise ResourceNotFound(f"there is no {name!r}", resource=(kind.field, name))
        return found


def _named(name: str, kind: Kind, path: str = "name") -> Findings:
    findings = Findings()
    if not (name.startswith(kind.prefix) and kind.id.fullmatch(name.removeprefix(kind.prefix))):
        findings.add(path, f"{name[:80]!r} is no name: write {kind.prefix}ID")
    return findings


def _stamp(made: Any, current: Any) -> None:
    """Sets what the server sets."""
    made.update_time.FromNanoseconds(time.time_ns())
    made.create_time.CopyFrom(made.update_time if current is None else current.create_time)
    made.ClearField("etag")
    if isinstance(made, route_pb2.Route):
        made.source = route_pb2.CONFIG_SOURCE_STORE


def _health(table: Table, name: str) -> Iterable[pb.TargetHealth]:
    route = table.resolve(name)
    for candidate in route.candidates:
        health = candidate.health
        attempts, failures = health.breaker.counts(time.monotonic())
        yield pb.TargetHealth(
            target=f"{candidate.provider.name}/{candidate.model}",
            state=health.breaker.state,
            in_flight=health.in_flight,
            attempts=attempts,
            failures=failures,
            latency_seconds=health.streams.ewma(time.monotonic()) or 0.0,
        )
