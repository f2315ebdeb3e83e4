"""Calls to the daemon: where it is, the operator's token, and its errors as ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.errors import DeadlineExceeded, InvalidRequest, OutpostError, Unauthorized, Unavailable, from_code
from agent.paths import default_state

if TYPE_CHECKING:
    import httpx  # at run time with the first call: `outpost serve` makes none

DEFAULT_URL = "http://127.0.0.1:8080"
_CONNECT_S = 5.0
_READ_S = 600.0

Url = Annotated[str, typer.Option("--url", envvar="OUTPOST_URL", help="Where the daemon is.", show_default=DEFAULT_URL)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        envvar="OUTPOST_STATE",
        help="State folder: operator's token, models, logs.",
        show_default="$XDG_STATE_HOME/outpost",
    ),
]


class Daemon:
    """A client of one daemon. Every method raises the OutpostError that the daemon sent, Unavailable when it is not
    there."""

    def __init__(self, url: str = DEFAULT_URL, state: Path | None = None, *, operator: bool = False) -> None:
        self._url = url.rstrip("/")
        self._token = _token(state) if operator else os.environ.get("OUTPOST_TOKEN", "")

    def get(self, path: str) -> Any:
        return self._call("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, json=body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def upload(self, path: str, file: Path, name: str) -> Any:
        """Send a file under a name. Raises InvalidRequest where it cannot be read."""
        try:
            stream = file.open("rb")
        except OSError as error:
            raise InvalidRequest(f"cannot read {file}: {error.strerror}", remedy="Check its permissions.") from error
        with stream:
            return self._call("POST", path, files={"file": (name, stream)})

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The objects of a server-sent event stream."""
        with (
            self._client() as client,
            _connection_errors(self._url),
            client.stream("POST", path, json=body) as response,
        ):
            if response.is_error:
                response.read()
                raise _error(response)
            for line in response.iter_lines():
                data = line.removeprefix("data: ")
                if data == line or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise from_code(event["error"]["code"], event["error"]["message"])
                yield event

    def lines(self, path: str) -> Iterator[dict[str, Any]]:
        """The objects of a stream of JSON lines."""
        with self._client() as client, _connection_errors(self._url), client.stream("GET", path) as response:
            if response.is_error:
                response.read()
                raise _error(response)
            for line in response.iter_lines():
                yield json.loads(line)

    def _call(self, method: str, path: str, **content: Any) -> Any:
        with self._client() as client, _connection_errors(self._url):
            response = client.request(method, path, **content)
        if response.is_error:
            raise _error(response)
        return response.json() if response.content else None

    def _client(self) -> httpx.Client:
        import httpx

        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        timeout = httpx.Timeout(_READ_S, connect=_CONNECT_S)
        return httpx.Client(base_url=self._url, headers=headers, timeout=timeout, trust_env=False)


@contextmanager
def _connection_errors(url: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.InvalidURL as error:
        raise Unavailable(f"{url!r} is no address: {error}", remedy="Give one like http://127.0.0.1:8080.") from error
    except httpx.TimeoutException as error:
        raise DeadlineExceeded(f"the daemon at {url} did not answer in time", remedy="Look at its log.") from error
    except httpx.UnsupportedProtocol as error:
        raise Unavailable(f"{url!r} is no address", remedy="Give one like http://127.0.0.1:8080.") from error
    except httpx.ConnectError as error:
        raise Unavailable(
            f"no daemon answers at {url}", remedy="Start it with `outpost serve`, or name another with --url."
        ) from error
    except httpx.TransportError as error:
        raise Unavailable(f"the connection to {url} broke off: {error}", remedy="Try again.") from error


def _error(response: httpx.Response) -> OutpostError:
    try:
        error = response.json()["error"]
        if error["code"] == Unauthorized.code:
            return Unauthorized(
                f"the daemon at {_origin(response)} did not accept the token of this call",
                remedy="The operator's is in the file operator-token of the daemon's state folder: name that folder"
                " with --state or OUTPOST_STATE, or put a token into OUTPOST_TOKEN.",
            )
        return from_code(error["code"], error["message"], param=error["param"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(
            f"{response.url} answered {response.status_code} in a form that is not Outpost's",
            remedy="Is another server at this address? Name the right one with --url.",
        )


def _origin(response: httpx.Response) -> str:
    return f"{response.url.scheme}://{response.url.netloc.decode()}"


def _token(state: Path | None) -> str:
    """``OUTPOST_TOKEN``, else what `serve` wrote into the state folder."""
    if token := os.environ.get("OUTPOST_TOKEN"):
        return token
    try:
        return ((state or default_state()) / "operator-token").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""  # the daemon's 401 says what is missing
