"""What the processes print that a notebook has forked.

They send it to the kernel. ipykernel receives it at a TCP port, which any program of this machine
may connect to; what such a program sends is printed into the notebook's output ("Bad pipe
message"). Here it is a socket in the run's own folder, as for the kernel's other messages.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["receive_at"]

_LINGER_MILLIS = 3000  # as in ipykernel: how long a process that ends waits for its last output


def receive_at(file: Path, thread: Any) -> None:
    """Have the kernel receive it at a socket in a folder.

    :param file: the socket's file; its path must be short.
    :param thread: ipykernel's class ``IOPubThread``, before it is used.
    """
    if os.name != "posix":
        return
    zmq: Any = import_module("zmq")
    streams: Any = import_module("zmq.eventloop.zmqstream")
    address = f"ipc://{file}"

    def set_up_input(self: Any) -> None:
        self._pipe_uuid = os.urandom(16)
        socket = self.socket.context.socket(zmq.PULL)
        socket.linger = 0
        socket.bind(address)
        self._pipe_in = streams.ZMQStream(socket, self.io_loop)
        self._pipe_in.on_recv(self._handle_pipe_msg)

    def set_up_output(_self: Any) -> tuple[Any, Any]:
        # In a forked process: the context of the kernel cannot be used there.
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.linger = _LINGER_MILLIS
        socket.connect(address)
        return context, socket

    thread._setup_pipe_in = set_up_input  # noqa: SLF001  (has no public way)
    thread._setup_pipe_out = set_up_output  # noqa: SLF001
