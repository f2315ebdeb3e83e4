"""An endpoint of the configuration, filled in from the environment and made ready to be connected to.

OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL fill what an `agent.config.Endpoint` leaves empty. TLS is always
verified; plain http goes only to addresses that cannot lie outside the device's own network.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.config import Endpoint, Escalation
from agent.errors import ConfigError

if TYPE_CHECKING:
    import httpx  # at run time with the first connection: a device that never asks does without it

OPENAI = "https://api.openai.com/v1"
_KEEP_ALIVE_S = 60.0
_CONNECTIONS = 8
_PRIVATE_SUFFIXES = (".local", ".lan", ".internal", ".home.arpa", ".localhost")


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint with everything filled in: ``url`` without a slash at its end, ``key`` "" for none; ``key_from`` says
    where the key comes from, for remedies."""

    endpoint: Endpoint
    url: str
    model: str
    key: str
    key_from: str

    @property
    def name(self) -> str:
        return self.endpoint.name

    def field(self, name: str) -> str:
        """A field of this endpoint, as remedies name it."""
        return f"escalation.endpoints.{name} of {self.name!r}"


def is_configured(escalation: Escalation, environ: Mapping[str, str] | None = None) -> bool:
    """Whether anything names a server: an endpoint in the configuration, or OpenAI's variables."""
    env = os.environ if environ is None else environ
    return bool(escalation.endpoints or env.get("OPENAI_BASE_URL") or env.get("OPENAI_API_KEY"))


def targets(escalation: Escalation, environ: Mapping[str, str] | None = None) -> tuple[Target, ...]:
    """The endpoints in their order; without any in the configuration, the one that the environment describes.

    Reads the key files. Raises ConfigError.
    """
    env = os.environ if environ is None else environ
    endpoints = escalation.endpoints or (Endpoint(),)
    names = [endpoint.name for endpoint in endpoints]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"several escalation.endpoints are called {', '.join(sorted(twice))}", remedy="Give each its own name."
        )
    return tuple(_target(endpoint, env) for endpoint in endpoints)


def client(target: Target, escalation: Escalation) -> httpx.AsyncClient:
    """A pool of connections, HTTP/2 where the server speaks it. Reads certificates, so call it in a thread. Raises
    ConfigError."""
    import httpx

    proxy = target.endpoint.proxy or None
    return httpx.AsyncClient(
        http2=True,
        verify=_trust(target),
        proxy=proxy,
        trust_env=proxy is None,  # the environment's proxies
        timeout=httpx.Timeout(escalation.read_s, connect=escalation.connect_s, pool=escalation.connect_s),
        limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_KEEP_ALIVE_S),
        follow_redirects=False,
    )


def _target(endpoint: Endpoint, env: Mapping[str, str]) -> Target:
    url = (endpoint.url or env.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
    source = f"escalation.endpoints.url of {endpoint.name!r}" if endpoint.url else "OPENAI_BASE_URL"
    _check_url(url, source)
    if endpoint.proxy and urlsplit(endpoint.proxy).scheme not in ("http", "https"):
        raise ConfigError(
            f"escalation.endpoints.proxy of {endpoint.name!r} is {endpoint.proxy!r}",
            remedy="Begin it with http:// or https://.",
        )
    if (endpoint.client_cert is None) != (endpoint.client_key is None):
        raise ConfigError(
            f"the endpoint {endpoint.name!r} has only one of client_cert and client_key", remedy="Name both, or none."
        )
    model = endpoint.model or env.get("OPENAI_MODEL", "")
    if not model:
        raise ConfigError(
            f"no model is named for the endpoint {endpoint.name!r}",
            remedy="Set escalation.endpoints.model, or OPENAI_MODEL.",
        )
    key, key_from = env.get("OPENAI_API_KEY", "").strip(), "OPENAI_API_KEY"
    if endpoint.key_file is not None:
        key_from = f"escalation.endpoints.key_file of {endpoint.name!r} ({endpoint.key_file})"
        try:
            key = endpoint.key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {key_from}: {error}", remedy="Check its path and permissions.") from error
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"{key_from} is no API key", remedy="It must be one line of ASCII characters.")
    return Target(endpoint, url, model, key, key_from)


def _check_url(url: str, source: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{source} is {url!r}: {error}", remedy="Name a base URL such as https://host/v1.") from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(f"{source} is {url!r}", remedy="Name a base URL such as https://host/v1.")
    if parts.username is not None:
        raise ConfigError(f"{source} holds a user name", remedy="Put credentials into escalation.endpoints.key_file.")
    if parts.scheme == "http" and not is_near(host):
        raise ConfigError(
            f"{source} is {url!r}: questions and key would cross the internet in the clear", remedy="Use https."
        )


def is_near(host: str) -> bool:
    """Whether a host can only be this machine or one of its own network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_link_local


def _trust(target: Target) -> ssl.SSLContext:
    ca, cert, key = target.endpoint.ca_file, target.endpoint.client_cert, target.endpoint.client_key
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot read {target.field('ca_file')} ({ca}): {error}", remedy="Name a file with PEM certificates."
        ) from error
    system = ssl.get_default_verify_paths()
    if ca is None and system.cafile is None and system.capath is None:  # a small image without ca-certificates
        import certifi

        context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, password=lambda: "")  # never asks at a terminal
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot use {target.field('client_cert')} ({cert}) with its key ({key}): {error}",
                remedy="Name PEM files that belong together; the key must not be encrypted.",
            ) from error
    return context
