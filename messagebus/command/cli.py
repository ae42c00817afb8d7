"""The group of all commands. A command's module is imported when the command is called, so that ``--help`` and the
completion of a shell are quick, and ``serve`` can have gevent patch before anything else is there."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

from .. import __version__
from .ending import ended_as_the_shell_expects


class _Entry(NamedTuple):
    place: str
    """Module and name of the command."""
    short_help: str
    """The first sentence of its help."""


COMMANDS = {
    "backlog": _Entry(".backlog:backlog", "Print the messages that are kept of a channel."),
    "channels": _Entry(".channels:channels", "List the channels that have messages."),
    "completion": _Entry(".completion:completion", "Print the completion of a shell: bash, zsh or fish."),
    "doctor": _Entry(
        ".doctor.cli:doctor", "Say what is wrong between browsers, the bus and its store, and which lines to change."
    ),
    "exec": _Entry(".execute:execute", "Run a program, and publish each line that it prints."),
    "publish": _Entry(".publish:publish", "Publish a message, or one for each line."),
    "restart": _Entry(
        ".background:restart",
        "End the server, and start it with these arguments, or without any with those that it had.",
    ),
    "serve": _Entry("..serve.cli:serve", "Serve a WSGI app that has the bus, or without APP the bus alone, on gevent."),
    "start": _Entry(".background:start", "Start messagebus serve in the background, and wait until it serves."),
    "stats": _Entry(".stats:stats", "Print what a bus counts, once."),
    "stop": _Entry(".background:stop", "End the server in order, as SIGTERM does, and wait until it has ended."),
    "subscribe": _Entry(".subscribe:subscribe", "Print the messages of channels as they come."),
    "top": _Entry(".top:top", "Show the busiest channels, live."),
    "why": _Entry(".why:why", "Tell why somebody did not get a message."),
}


class Commands(click.Group):
    """Knows its commands by name, and imports the one that is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else self.load(name), rest

    def load(self, name: str) -> click.Command:
        """The command itself; ``commands`` has only what a list of them needs."""
        module, _, attribute = COMMANDS[name].place.partition(":")
        command = getattr(import_module(module, __package__), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        with ended_as_the_shell_expects():
            return super().invoke(ctx)


@click.group(
    cls=Commands,
    commands={name: click.Command(name, short_help=entry.short_help) for name, entry in COMMANDS.items()},
    context_settings={"max_content_width": 100},
)
@click.version_option(__version__, prog_name="messagebus")
def main() -> None:
    """A durable message bus between Python processes and web pages.

    \b
    Try it, in two terminals:
      messagebus serve --allow-anonymous-publish
      messagebus subscribe /chat --url http://localhost:8000
    \b
    and in a third:
      messagebus publish /chat hello --url http://localhost:8000

    Exit codes of all commands: 0 done, 1 failed, 2 wrongly called or nobody answers.
    """
