"""The servers that are measured."""

from __future__ import annotations

from .action_cable import ActionCable
from .base import Contender, Entry
from .flask_socketio import FlaskSocketIO
from .messagebus import MessageBus
from .nchan import Nchan
from .socketio import SocketIO

__all__ = ["ActionCable", "Contender", "Entry", "FlaskSocketIO", "MessageBus", "Nchan", "SocketIO"]
