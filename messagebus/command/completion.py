"""``messagebus completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(context_settings={"max_content_width": 100})
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion of a shell: bash, zsh or fish.

    It completes commands and options, once the shell has read it.

    \b
      messagebus completion bash >> ~/.bashrc
      messagebus completion zsh >> ~/.zshrc
      messagebus completion fish > ~/.config/fish/completions/messagebus.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "messagebus", "_MESSAGEBUS_COMPLETE").source())
