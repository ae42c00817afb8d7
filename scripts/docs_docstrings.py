"""Makes Markdown of what the docstrings write in reStructuredText: roles, and the colons before a literal block."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:py:)?(?:class|meth|func|attr|data|mod|exc):`~?([^`]+)`")
DIRECTIVE = re.compile(r"^\.\. (versionadded|versionchanged):: (.*)$", re.MULTILINE)


class PlainMarkdown(Extension):
    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            text = DIRECTIVE.sub(r"*\1 \2*", text)
            text = re.sub(r"^::\n", "", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
