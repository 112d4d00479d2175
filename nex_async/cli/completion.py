"""`nex-async completion`: what makes a shell complete the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: nex-async completion bash > ~/.local/share/bash-completion/completions/nex-async
    zsh:  nex-async completion zsh > a file _nex-async in a directory of $fpath
    fish: nex-async completion fish > ~/.config/fish/completions/nex-async.fish
    """  # noqa: D301  (click reads the character \b, not two letters)
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "nex-async", "_NEX_ASYNC_COMPLETE").source())
