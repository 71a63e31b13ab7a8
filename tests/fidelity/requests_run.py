"""`make fidelity-requests`: a recorded request becomes a spec, the spec is encoded, and both bodies are compared.

What may differ is in `equivalences.TABLE`; what the contract has no words for may ride in provider_options_json only
if it is in `equivalences.OPTIONS`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fidelity import corpus, equivalences, targets
from tests.fidelity.calls import CONVERTERS, STRANGE
from tests.fidelity.requests import openai_chat

from trunkline_server import providers
from trunkline_server.errors import GatewayError
from trunkline_server.providers.base import Dialect, Notes, Target


def compared(recording: corpus.Recording, kind: str) -> tuple[list[str], list[str]]:
    """The members that came back different, and those that needed provider_options_json."""
    row = providers.KINDS[kind]
    tongue = row.tongue_of(recording.model)
    dialect: Dialect = providers.DIALECTS[tongue.dialect]()
    recorded: dict[str, Any] = corpus.with_whole_base64(recording.request)
    try:
        spec = CONVERTERS.get(kind, openai_chat.spec_from)(recorded)
    except STRANGE as strange:
        return [f"not in the contract: {type(strange).__name__}"], []
    spec.model = f"{kind}/{recording.model}"
    options = equivalences.options_of(recorded, tongue.dialect, kind)
    needed = equivalences.names_of(options, tongue.dialect, kind)
    if options:
        spec.provider_options_json[kind] = json.dumps(options)
    capabilities = row.capabilities_of(recording.model)
    origin = tongue.origin or kind
    target = Target(provider=kind, origin=origin, model=recording.model, capabilities=capabilities)
    try:
        request = dialect.encode(spec, target, Notes(), stream=bool(recorded.get("stream")))
    except GatewayError as error:
        return [f"not encoded: {error.reason}"], needed
    encoded = json.loads(request.body)
    if recorded.get("model") is None and "/deployments/" in recording.path:
        # The model is in the path: Azure takes none in the body.
        encoded.pop("model", None)
    return equivalences.differences(recorded, encoded, tongue.dialect, kind), needed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 below --min, 2 if it cannot run."""
    options = _options(arguments)
    folder: Path = options.corpus
    if not (folder / "recordings").exists():
        sys.stderr.write(f"fidelity-requests: there is no {folder / 'recordings'}\n")
        return 2
    kinds = frozenset(providers.KINDS)
    total, equal, helped = Counter[str](), Counter[str](), Counter[str]()
    optional = Counter[str]()
    left_out = 0
    differing: dict[tuple[str, str], list[str]] = defaultdict(list)
    lines: list[str] = []
    for family in options.families.split(",") if options.families else corpus.families(folder):
        kind = targets.kind_for(family, kinds)
        for recording in corpus.read(folder, family):
            if recording.kind != "chat" or not isinstance(recording.request, dict):
                continue
            if ".invoke" in family and "messages" not in recording.request:
                # The wire of one maker's models, which are not spoken to in it.
                left_out += 1
                continue
            if kind is None or providers.KINDS[kind].dialect not in equivalences.TABLE:
                different, needed = ["not served yet"], list[str]()
            else:
                different, needed = compared(recording, kind)
            total[family] += 1
            equal[family] += not different
            helped[family] += bool(needed)
            optional.update(needed)
            if different:
                differing[family, ", ".join(different)].append(recording.id)
            lines.append(json.dumps({"id": recording.id, "equal": not different, "differs": different}) + "\n")
    if options.out:
        options.out.write_text("".join(lines))
    if left_out:
        _say(f"left out: {left_out} InvokeModel requests in the wire of a maker whose models are reached by Converse")
    return _report(total, equal, helped, differing, optional, options.min)


def _report(
    total: Counter[str],
    equal: Counter[str],
    helped: Counter[str],
    differing: dict[tuple[str, str], list[str]],
    optional: Counter[str],
    least: float,
) -> int:
    for family in sorted(total):
        share = 100 * equal[family] / total[family]
        options = f"  {helped[family]} with provider_options_json" if helped[family] else ""
        _say(f"{family:34s} {equal[family]:5d} of {total[family]:5d}  {share:6.2f} %{options}")
    for (family, members), ids in sorted(differing.items(), key=lambda item: -len(item[1])):
        _say(f"  {len(ids):4d} x {family}: {members}: {' '.join(ids[:3])}")
    count, good = total.total(), equal.total()
    share = 100 * good / count if count else 0.0
    names = ", ".join(f"{name} {times}" for name, times in optional.most_common())
    _say(f"needed provider_options_json: {helped.total()}{f' ({names})' if names else ''}")
    _say(f"fidelity-requests: {share:.2f} % ({good} of {count})")
    return 0 if count and share >= least else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _options(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="fidelity-requests", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with recordings/")
    parser.add_argument("--families", help="comma-separated; default: all in scope")
    parser.add_argument("--out", type=Path, help="where to write a line for each recording")
    parser.add_argument("--min", type=float, default=0.0, help="percent; exit 1 below")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
