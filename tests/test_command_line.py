"""The command ``messagebus``: its group, and what its commands share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from messagebus.command.cli import COMMANDS, main
from messagebus.command.lines import LineTooLong, read_lines
from messagebus.command.output import printable
from messagebus.command.places import Channel
from messagebus.command.publish import _id
from messagebus.command.top import Look, busiest, rate


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_list_of_commands_says_what_the_help_of_each_says(name: str) -> None:
    command = main.load(name)
    assert command.name == name
    help = " ".join((command.help or "").split("\n\n")[0].split())
    assert help == COMMANDS[name].short_help


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"serve", "stop", "restart", "doctor"}))
def test_the_help_of_a_command_has_an_example(name: str) -> None:
    assert f"  messagebus {name} " in (main.load(name).help or "")


def test_the_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom messagebus.command.cli import main\nmain(['--help'], standalone_mode=False)\n"
        "loaded = {'flask', 'gevent', 'redis', 'ssl', 'messagebus.serve.cli', 'messagebus.command.publish'}\n"
        "sys.exit(', '.join(loaded & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "  publish  " in done.stdout


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_completion_of_a_shell_is_printed(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_MESSAGEBUS_COMPLETE" in done.output


@pytest.mark.parametrize(
    ("words", "current", "expected"),
    [("messagebus pub", 1, "plain,publish"), ("messagebus publish --js", 2, "plain,--json")],
)
def test_commands_and_their_options_are_completed(words: str, current: int, expected: str) -> None:
    environment = {"_MESSAGEBUS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(current)}
    done = CliRunner().invoke(main, [], env=environment, prog_name="messagebus")
    assert done.output.split() == [expected]


def test_a_command_without_a_bus_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESSAGEBUS_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    done = CliRunner().invoke(main, ["publish", "/chat", "hello"])
    assert done.exit_code == 2
    assert "Give --url, or set MESSAGEBUS_URL" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["publish", "chat", "x"], "a channel starts with '/'"),
        (["publish", "/chat", "{", "--json"], "the message is not JSON"),
        (["publish", "/chat", "x", "--lines"], "leave DATA out"),
        (["publish", "/chat", "x", "--max-backlog-size", "0"], "max_backlog_size"),
        (["publish", "/chat", "x", "--url", "http://user:password@host"], "Authorization header"),
        (["publish", "/chat", "x", "--url", "http://localhost", "--key", "ü"], "option key: expected printable ASCII"),
        (["publish", "/chat", "x", "--url", "memory://"], "is within the app's own process"),
        (["publish", "/chat", "x", "--url", "nothing://host"], "--url: expected http://, https://, sqlite://"),
        (["subscribe", "/chat", "--last", "1", "--from", "2"], "give one of them"),
        (["subscribe"], "Missing argument"),
        (["subscribe", "/__status"], "the bus's own"),
        (["backlog", "/chat", "--export", "--format", "raw"], "leave --format out"),
        (["backlog", "/chat", "--from", "0"], "not in the range"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_code_2(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(main, arguments, env={"MESSAGEBUS_URL": "redis://127.0.0.1:1"})
    assert done.exit_code == 2
    assert says in done.output
    assert "Traceback" not in done.output


def test_the_key_is_in_no_error() -> None:
    arguments = ["publish", "/chat", "x", "--url", "http://127.0.0.1:1"]
    done = CliRunner().invoke(main, arguments, env={"MESSAGEBUS_KEY": "se\ncret"})
    assert done.exit_code == 2
    assert "cret" not in done.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello, wörld \U0001f44b", "hello, wörld \U0001f44b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\x9b", "a\\nb\\x9b"),
        ("\u202etxt", "\\u202etxt"),
    ],
)
def test_what_could_move_the_cursor_of_a_terminal_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("7", 7), ('"7"', "7"), ("ann", "ann"), ("true", "true"), ("[", "[")])
def test_an_id_is_read_as_over_http(text: str, expected: object) -> None:
    assert _id(text) == expected
    assert type(_id(text)) is type(expected)


# --- top ---


def look(at: float, global_id: int, complete: bool = True, **last_ids: int) -> Look:
    channels: dict[tuple[str, str | None], Channel] = {
        (f"/{name}", None): Channel(f"/{name}", 1, last_id) for name, last_id in last_ids.items()
    }
    return Look(at, {"published_messages": global_id}, channels, complete)


def test_the_busiest_channel_comes_first() -> None:
    before, now = look(10.0, 100, a=50, b=50), look(12.0, 130, a=52, b=60, new=8)
    rows = [(row.channel, row.per_second) for row in busiest(before, now)]
    assert rows == [("/b", 5.0), ("/new", 4.0), ("/a", 1.0)]
    assert rate(before, now, "published_messages") == 15.0


def test_ids_that_begin_again_and_channels_that_were_not_seen_before_are_no_rate() -> None:
    before, now = look(10.0, 100, complete=False, a=50), look(11.0, 3, a=2, unseen=1000)
    assert {row.per_second for row in busiest(before, now)} == {0.0}
    assert rate(before, now, "published_messages") == 0.0


# --- lines ---


@pytest.fixture
def written() -> Callable[[bytes], int]:
    def write(content: bytes) -> int:
        read, write = os.pipe()
        os.write(write, content)
        os.close(write)
        return read

    return write


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\nb", [b"a", b"b"]),
        (b"\n\na", [b"", b"", b"a"]),
    ],
)
def test_bytes_are_cut_into_lines(written: Callable[[bytes], int], content: bytes, lines: list[bytes]) -> None:
    assert [line for some in read_lines(written(content)) for line in some] == lines


def test_a_line_is_there_before_the_next_one_is_written() -> None:
    read, write = os.pipe()
    lines = read_lines(read)
    os.write(write, b"one\ntw")
    assert next(lines) == [b"one"]
    os.write(write, b"o\n")
    assert next(lines) == [b"two"]
    os.close(write)
    assert next(lines, None) is None


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    written: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.command.lines.MOST", 10)
    with pytest.raises(LineTooLong):
        list(read_lines(written(b"short\n" + b"x" * 11)))
