"""One list of notes in React, Vue, Alpine and htmx: ``messagebus serve demo.frameworks:app``.

Each page follows the channel /notes and shows how the connection is. The frameworks come from a CDN; what is the bus's
own comes from the bus.
"""

from __future__ import annotations

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import escape

from messagebus import MessageBus

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)

PAGES = ("react", "vue", "alpine", "htmx")
KEPT = 100  # notes
MAX_TEXT = 200  # characters


@app.get("/")
def home() -> ResponseReturnValue:
    return redirect(url_for("page", name="htmx"))


@app.get("/<any(react, vue, alpine, htmx):name>")
def page(name: str) -> str:
    # What is in the page, and from where it goes on: read in this order, nothing is missed between the two.
    notes = [message.data["html"] for message in MessageBus.backlog("/notes", 0)]
    return render_template(f"frameworks/{name}.html", name=name, pages=PAGES, notes=notes)


@app.post("/notes")
def add() -> Response:
    text = request.form.get("text", "").strip()[:MAX_TEXT]
    if not text:
        abort(400, "text: expected some")
    # The text for pages that build their own elements, the HTML for those that swap it in.
    MessageBus.publish("/notes", {"text": text, "html": f"<li>{escape(text)}</li>"}, max_backlog_size=KEPT)
    return Response(status=204)
