"""The commands: complete, chat, models, health, and the group traces."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson
from rich.console import Console
from rich.table import Table

from trunkline import CompletionStream, NotFound, Tls, __version__, system, text_of, user
from trunkline.channel import DEFAULT_ADDRESS, LOOKUP_TIMEOUT
from trunkline.cli import problems, traces
from trunkline.cli.chat import Chat
from trunkline.cli.connection import Connection
from trunkline.spec import SpecOptions
from trunkline.v1.completion_pb2 import FINISH_REASON_LENGTH, Completion
from trunkline.v1.message_pb2 import Message
from trunkline.v1.model_service_pb2 import Capability, ListModelsResponse

_CODES = "\n\n".join(f"{code}  {meaning}" for code, meaning in problems.EXIT_CODES)

app = typer.Typer(
    name="trunkline",
    help="Talk to models through a trunkline gateway.",
    epilog=f"Exit codes:\n\n{_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(traces.app, name="traces")


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"trunkline {__version__}\n")
        raise typer.Exit


@app.callback()
def connect(
    context: typer.Context,
    address: Annotated[
        str, typer.Option(envvar="TRUNKLINE_ADDRESS", metavar="HOST:PORT", help="Where the gateway is.")
    ] = DEFAULT_ADDRESS,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="TRUNKLINE_API_KEY", metavar="KEY", help="Your key, where the gateway wants one."),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option("--tls/--no-tls", help="Encrypt. By default for every address but this machine's own."),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of the authority behind the server's certificate.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of your certificate, for mutual TLS.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file of the key to --cert.")] = None,
    server_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in the server's certificate, if not that of the address.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="Time for a call. Default: 600, a stream 1800, a look-up 30."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    wants_files = any(option is not None for option in (ca_file, cert, key, server_name))
    if wants_files and tls is False:
        raise typer.BadParameter("--no-tls does not go with --ca-file, --cert, --key or --server-name")
    security = Tls(ca_file, cert, key, server_name) if wants_files else tls
    context.obj = Connection(address, api_key, security, timeout)


ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", envvar="TRUNKLINE_MODEL", metavar="NAME", help="Model, as `trunkline models` names it."
    ),
]
System = Annotated[str | None, typer.Option("--system", "-s", metavar="TEXT", help="Instructions for the model.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="Most tokens to generate.")]
Temperature = Annotated[float | None, typer.Option("--temperature", "-t", min=0, help="0: near deterministic.")]


@app.command()
def complete(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    model: ModelName = None,
    instructions: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole Completion as JSON.")] = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print the answer as it is made.")] = True,
) -> None:
    """Ask once and print the answer."""
    connection: Connection = context.obj
    messages = [*([system(instructions)] if instructions else []), user(_read(prompt))]
    options = _options(model, max_tokens, temperature)
    with problems.told(connection.address), connection.client() as client:
        if stream:
            with client.stream(messages, timeout=connection.timeout, **options) as answer:
                completion = answer.collect() if as_json else _print_pieces(answer)
        else:
            completion = client.complete(messages, timeout=connection.timeout, **options)
            if not as_json:
                _end_line(text_of(completion), printed=False)
        if as_json:
            sys.stdout.write(MessageToJson(completion, preserving_proto_field_name=True, indent=2) + "\n")
        remarks(completion)
        refusal = _refusal(completion.choices[0].message) if completion.choices else ""
    if refusal:
        problems.errors.print(f"error: the model declined: {refusal}", style="red")
        raise typer.Exit(problems.FAILED)


@app.command()
def chat(
    context: typer.Context,
    model: ModelName = None,
    instructions: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
) -> None:
    """Talk, turn by turn. Ctrl-C stops an answer, /quit ends the chat, /help tells more."""
    connection: Connection = context.obj
    options = _options(model, max_tokens, temperature)
    with problems.told(connection.address), connection.client() as client:
        Chat(client, options, instructions, connection.timeout).run()


@app.command()
def models(
    context: typer.Context,
    provider: Annotated[str, typer.Option(metavar="NAME", help="Only models of this provider.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
) -> None:
    """List the models that can be called; one a line with tabs between the columns where it is not a terminal."""
    connection: Connection = context.obj
    with problems.told(connection.address), connection.client() as client:
        listed = client.list_models(provider, timeout=connection.timeout or LOOKUP_TIMEOUT)
    if as_json:
        sys.stdout.write(MessageToJson(listed, preserving_proto_field_name=True, indent=2) + "\n")
    else:
        _print_models(listed)
    for unlisted in listed.unlisted_providers:
        problems.note(f"the models of {unlisted.provider} are missing: {unlisted.reason}")
    if not listed.models:
        problems.note("no models: is a provider configured?")


@app.command()
def health(
    context: typer.Context,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="One service, e.g. trunkline.v1.CompletionService. Default: the server.")
    ] = "",
) -> None:
    """Say whether the gateway serves. Exit code 0 only if it does."""
    connection: Connection = context.obj
    with problems.told(connection.address), connection.client() as client:
        try:
            status = client.health(service, timeout=connection.timeout or LOOKUP_TIMEOUT)
        except NotFound:
            problems.errors.print(f"error: {connection.address} has no service {service!r}", style="red")
            raise typer.Exit(problems.FAILED) from None
    sys.stdout.write(f"{status}\n")
    if status != "SERVING":
        raise typer.Exit(problems.FAILED)


def remarks(completion: Completion) -> None:
    """What a reader of the text alone would miss."""
    for warning in completion.warnings:
        problems.note(f"{warning.field}: {warning.message or warning.reason}")
    for choice in completion.choices[:1]:
        if choice.finish_reason == FINISH_REASON_LENGTH:
            problems.note("cut off: the most tokens were reached; see --max-tokens")


def _read(prompt: str) -> str:
    try:
        # Bytes, as the locale may let anything through as text.
        prompt = sys.stdin.buffer.read().decode() if prompt == "-" else prompt.encode().decode()
    except UnicodeError:
        raise typer.BadParameter("is not text in UTF-8", param_hint="PROMPT") from None
    if not prompt.strip():
        raise typer.BadParameter("is empty; say what to ask", param_hint="PROMPT")
    return prompt


def _options(model: str | None, max_tokens: int | None, temperature: float | None) -> SpecOptions:
    if not model:
        raise typer.BadParameter(
            "name one with --model or TRUNKLINE_MODEL; to list them: trunkline models", param_hint="--model"
        )
    options: SpecOptions = {"model": model}
    if max_tokens is not None:
        options["max_output_tokens"] = max_tokens
    if temperature is not None:
        options["temperature"] = temperature
    return options


def _print_pieces(stream: CompletionStream) -> Completion:
    """Prints the text as it comes, and ends the line also where the stream breaks."""
    last = ""
    try:
        for piece in stream.text():
            last = piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        _end_line(last, printed=True)
    return stream.completion


def _end_line(words: str, *, printed: bool) -> None:
    """Prints `words` unless they are, with a new line after them if there is none."""
    sys.stdout.write(("" if printed else words) + ("\n" if words and not words.endswith("\n") else ""))
    sys.stdout.flush()


def _refusal(message: Message) -> str:
    return "".join(part.refusal.text for part in message.parts if part.WhichOneof("kind") == "refusal")


def _print_models(listed: ListModelsResponse) -> None:
    rows = [
        (
            model.name,
            model.provider,
            str(model.context_window_tokens) if model.HasField("context_window_tokens") else "",
            str(model.max_output_tokens) if model.HasField("max_output_tokens") else "",
            " ".join(Capability.Name(able).removeprefix("CAPABILITY_").lower() for able in model.capabilities),
        )
        for model in listed.models
    ]
    console = Console()
    if not console.is_terminal:
        sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
        return
    table = Table("model", "provider", "context", "output", "can", box=None, header_style="bold")
    table.columns[2].justify = table.columns[3].justify = "right"
    for row in rows:
        table.add_row(*row)
    if rows:
        console.print(table)
