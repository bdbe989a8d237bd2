"""`ferrum-ref tokenize`: the tokens of a text.

Owns: how a piece is shown. Refuses to know: how text is cut (`ferrum.text`).
Specs: CLI-80 to CLI-83. Next: `ferrum.cli.bench`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ferrum.cli.loading import locate
from ferrum.cli.options import debug_option, json_option, model_option, offline_option
from ferrum.cli.prompt_text import read_prompt
from ferrum.cli.terminal import Progress, quoted
from ferrum.cli.terminal import as_json as json_line
from ferrum.errors import Unsupported

if TYPE_CHECKING:
    from ferrum.load.model import ModelFiles
    from ferrum.text.tokenizer import Tokenizer


@click.command()
@click.argument("text", required=False)
@click.option("-f", "--file", "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
              help="Read the text from this file (- for standard input); TEXT is added after it.")  # fmt: skip
@click.option("--chat", is_flag=True, help="Put the text into the chat template, as a message of the user.")
@click.option("--special/--no-special", "special", default=None,
              help="Add the special tokens that a prompt gets, such as the beginning of a text.  "
              "[default: special]")  # fmt: skip
@click.option("--ids", "only_ids", is_flag=True, help="Print the token ids only, on one line.")
@json_option
@model_option
@offline_option
@debug_option
def tokenize(
    text: str | None,
    file: Path | None,
    chat: bool,
    special: bool | None,
    only_ids: bool,
    as_json: bool,
    model: str,
    offline: bool,
) -> None:
    """Show the tokens of TEXT. The weights are not read.

    Without TEXT, or where it is "-", the text is read from standard input.
    """
    if chat and special is not None:
        raise click.UsageError("--special and --no-special have no meaning with --chat, whose template writes its own")
    if only_ids and as_json:
        raise click.UsageError("--ids and --json are two forms of output; choose one")
    prompt = read_prompt(text, file)
    progress = Progress()
    location = locate(model, progress, offline=offline)
    with progress.during(f"reading the tokenizer of {model}"):
        from ferrum.load.model import open_model

        files = open_model(location)
        tokenizer = files.vocabulary.tokenizer(files.token_ids)
        token_ids = encode(files, tokenizer, prompt, chat=chat, special=special is not False)
    pieces = [Piece.of(tokenizer, token_id) for token_id in token_ids]
    if as_json:
        click.echo(json_line(as_object(files.name, pieces)))
    elif only_ids:
        click.echo(" ".join(map(str, token_ids)))
    else:
        click.echo("".join(f"{as_line(piece)}\n" for piece in pieces), nl=False)
        click.echo(f"{len(pieces)} token{'' if len(pieces) == 1 else 's'}", err=True)


@dataclass(frozen=True)
class Piece:
    """One token of the text."""

    id: int
    content: bytes
    special: bool

    @staticmethod
    def of(tokenizer: Tokenizer, token_id: int) -> Piece:
        return Piece(token_id, tokenizer.token_bytes(token_id), token_id in tokenizer.special_ids)


def encode(files: ModelFiles, tokenizer: Tokenizer, text: str, *, chat: bool, special: bool) -> list[int]:
    """The token ids of a raw prompt, or of a user's message in the chat template."""
    if not chat:
        return tokenizer.encode(text, add_special_tokens=special)
    template = files.vocabulary.chat_template()
    if template is None:
        raise Unsupported(f"{files.name} has no chat template, so that --chat has no meaning")
    return tokenizer.encode(template.render([{"role": "user", "content": text}]), add_special_tokens=False)


def as_line(piece: Piece) -> str:
    """A token as a line of text."""
    return f"{piece.id:>7}  {quoted(piece.content)}{'  special' if piece.special else ''}"


def as_object(model: str, pieces: Sequence[Piece]) -> dict[str, Any]:
    """The object that --json prints."""
    return {
        "model": model,
        "token_ids": [piece.id for piece in pieces],
        "pieces": [
            {
                "id": piece.id,
                "text": piece.content.decode(errors="replace"),
                "bytes": piece.content.hex(),
                "special": piece.special,
            }
            for piece in pieces
        ],
        "count": len(pieces),
    }
