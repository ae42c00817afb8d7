"""A shop of two pages for Turbo: what its how-to page says, as an app."""

from __future__ import annotations

from flask import Flask, render_template_string, request
from markupsafe import Markup

from messagebus import MessageBus

PAGE = """<!doctype html>
<html>
<head>
  <title>{{ title }}</title>
  {{ message_bus() }}
  <script type="module" src="/bus.js"></script>
</head>
<body>
  <h1>{{ title }}</h1>
  <a href="/">Orders</a> <a href="/archive">Archive</a>
  <ul id="orders">{% for order in orders %}{{ item(order) }}{% endfor %}</ul>
  <div data-controller="bus" data-bus-channel-value="/orders" data-bus-position-value="{{ position }}"></div>
</body>
</html>
"""
ITEM = '<li id="order-{{ order }}">order {{ order }}</li>'
APPEND = '<turbo-stream action="append" target="orders"><template>{{ item(order) }}</template></turbo-stream>'

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)
orders: list[int] = []


@app.template_global()
def item(order: int) -> Markup:
    return Markup(render_template_string(ITEM, order=order))


@app.get("/hello")
def hello() -> str:
    return "hello"


@app.get("/")
def current() -> str:
    position = MessageBus.last_id("/orders")
    return render_template_string(PAGE, title="Orders", orders=orders, position=position)


@app.get("/archive")
def archive() -> str:
    position = MessageBus.last_id("/orders")
    return render_template_string(PAGE, title="Archive", orders=orders, position=position)


@app.post("/orders")
def order() -> str:
    orders.append(int(request.get_data()))
    MessageBus.publish("/orders", render_template_string(APPEND, order=orders[-1]))
    return "ordered"
