"""Templates for plain subscribers: what they make of a message, and which are none."""

from __future__ import annotations

import json

import pytest

from messagebus import InvalidOption, Options
from messagebus.options import from_environment
from messagebus.templates import Values, compile_template

EVIL = '"},</script>\\ & \n\u2028~id~'


def values(text: str = EVIL) -> Values:
    return Values(7, 99, '/a"<b>', text, json.dumps(text))


def test_a_template_is_filled_in_once() -> None:
    write = compile_template("~id~ ~global_id~ ~channel~ ~text~ ~~")
    assert write(values()) == f'7 99 /a"<b> {EVIL} ~'


def test_values_in_json_strings_stay_inside_of_them() -> None:
    write = compile_template('{"id":~id~,"channel":"~channel~","text":"\\"~text~"}')
    assert json.loads(write(values())) == {"id": 7, "channel": '/a"<b>', "text": f'"{EVIL}'}


def test_values_outside_of_json_strings_are_json() -> None:
    write = compile_template("[~id~, ~channel~, ~text~]")
    assert json.loads(write(Values(7, 9, "/a", '{"b":[1]}', '{"b":[1]}'))) == [7, "/a", {"b": [1]}]


def test_html_is_escaped() -> None:
    write = compile_template('<li id="m~id~">~channel~: ~text~</li>')
    assert write(Values(7, 9, "/a", "<img onerror='x'>&", "")) == (
        '<li id="m7">/a: &lt;img onerror=&#x27;x&#x27;&gt;&amp;</li>'
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("~name~", "~name~ is no field; known are ~id~"),
        ('{"a": ~id~', "begins like JSON"),
        ("<script>f('~text~')</script>", "stands in a script"),
        ('<a href="~text~">', "stands in a tag"),
        ("<style>~channel~</style>", "stands in a script or a style"),
    ],
)
def test_a_template_that_cannot_be_filled_in_safely_is_refused(template: str, reason: str) -> None:
    with pytest.raises(InvalidOption, match=reason) as refused:
        Options(templates={"mine": template})
    assert refused.value.option == "templates"


@pytest.mark.parametrize("templates", [{"raw": "~id~"}, {"a b": "~id~"}, {"": "x"}, {"a": 1}, ["a"], "a"])
def test_what_are_no_named_templates_is_refused(templates: object) -> None:
    with pytest.raises(InvalidOption):
        Options(templates=templates)  # type: ignore[arg-type]


def test_templates_come_from_the_environment_as_json() -> None:
    assert from_environment({"MESSAGEBUS_TEMPLATES": '{"a": "~id~"}'})["templates"] == {"a": "~id~"}
    with pytest.raises(InvalidOption, match="JSON object"):
        from_environment({"MESSAGEBUS_TEMPLATES": "a=b"})
