"""Telling systemd how we are: one datagram to the socket it names (sd_notify), and nothing where it names none."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """
    Tell the service manager, if there is one.

    Parameters
    ----------
    state : str
        Such as ``"READY=1"``.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):  # the abstract namespace
        path = f"\0{path[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(state.encode(), path)
