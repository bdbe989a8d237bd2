"""The real server on a real socket, in a thread of the test's own process: for clients that open connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ferrum.api.service import Service
from ferrum.api.stub import read_script, stub
from ferrum.server.app import make_app
from ferrum.server.run import DrainingServer, Terms, configured
from ferrum.server.settings import ServerSettings
from ferrum.server.sockets import bind, url


@contextmanager
def live_server(script: Mapping[str, Any], **settings: Any) -> Iterator[str]:
    """-> the address of a server whose model follows the script. `settings`: fields of ServerSettings."""
    service = Service(stub(read_script(script)))
    sockets = bind("127.0.0.1", 0)
    ready = threading.Event()
    app = make_app(service, ServerSettings(**settings))
    server = DrainingServer(configured(app, Terms()), service, drain_s=1.0, ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    try:
        assert ready.wait(30)
        yield url("127.0.0.1", sockets[0].getsockname()[1])
    finally:
        server.drain()
        thread.join()
        service.close()
