"""What the dkim room answers: sign for smtp-out; make keys and show their records for admin.

    POST /v1/sign?domain=D   the message's header block; Mailstead-Body-Hash, -Signatures (rsa | both), -Trace
                             → 200 and the DKIM-Signature field(s), each with its CRLF, to put above the message
    GET  /v1/keys?domain=D   → {"records": [{"name", "type", "value", "chunks", "presentation"}]}
    POST /v1/keys {"domain"} → the same; makes what is missing, so that it may be asked again

Errors: 400 for what the asker did wrong, 404 where the domain has no key, 503 where a key file cannot be used or
the clock is not set yet.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from services.directory.addresses import InvalidName, domain_name
from services.dkim.keys import ED25519, RSA, KeyStore, NamedKey, NoKey
from services.dkim.records import record
from services.message.dkim_signature import BadHeaderBlock, BadKey, read_fields, sign
from services.runtime.events import is_trace_id, new_trace_id
from services.runtime.internal_http import BadRequest, Request, Response, Routes
from services.runtime.process import Context

# Which keys sign for the header Mailstead-Signatures. RSA comes out on top: verifiers that look at one signature only
# look at the first, and not all of them know Ed25519.
SIGNATURES = {"rsa": (RSA,), "both": (RSA, ED25519)}

# A base64 SHA-256, checked before any key is touched.
_BODY_HASH = re.compile(r"[A-Za-z0-9+/]{43}=")


class Service:
    """The room's handlers over one `KeyStore`."""

    def __init__(self, context: Context, store: KeyStore, clock_problem: Callable[[], str] = lambda: "") -> None:
        """`clock_problem` says why the time is not known: nothing is signed and no selector is dated until it is."""
        self._context = context
        self._store = store
        self._clock_problem = clock_problem
        self._making = asyncio.Lock()  # two requests for one domain must not make two pairs

    def routes(self) -> Routes:
        """The paths and who may ask them."""
        routes = Routes()
        routes.add("POST", "/v1/sign", self.sign, allow=("smtp-out",))
        routes.add("GET", "/v1/keys", self.show_keys, allow=("admin",))
        routes.add("POST", "/v1/keys", self.make_keys, allow=("admin",))
        return routes

    async def complete(self) -> None:
        """At start: finish what a power cut left half made."""
        for domain, key in await asyncio.to_thread(self._store.complete):
            self._say_made(domain, key)

    async def sign(self, request: Request) -> Response:
        """POST /v1/sign."""
        started = time.perf_counter()
        trace = request.headers.get("mailstead-trace", "")
        if not is_trace_id(trace):
            raise BadRequest("Mailstead-Trace must be the message's trace id")
        domain = _domain(request.query.get("domain", ""))
        kinds = SIGNATURES.get(request.headers.get("mailstead-signatures", ""))
        if kinds is None:
            raise BadRequest("Mailstead-Signatures must be rsa or both")
        body_hash = request.headers.get("mailstead-body-hash", "")
        if not _BODY_HASH.fullmatch(body_hash):
            raise BadRequest("Mailstead-Body-Hash must be the base64 of a SHA-256")
        if problem := self._clock_problem():
            return self._refused(trace, domain, 503, problem)
        try:
            fields = read_fields(request.body)
        except BadHeaderBlock as error:
            return self._refused(trace, domain, 400, str(error))
        try:
            keys = await self._keys(domain)
        except NoKey as error:
            return self._refused(trace, domain, 404, str(error))
        except (BadKey, OSError) as error:
            return self._unusable(trace, domain, error)
        # A domain with one kind only (the other was removed by hand) signs with it rather than not at all.
        chosen = [keys[kind] for kind in kinds if kind in keys] or list(keys.values())
        now = self._context.clock()
        # On the loop: 0.3 ms for RSA, less than a thread's two switches would add to each other request.
        signatures = [sign(fields, body_hash, domain, each.selector, each.key, now) for each in chosen]
        self._context.events.emit(
            "signed",
            trace,
            outcome="accept",
            domain=domain,
            selectors=[each.selector for each in chosen],
            ms=round((time.perf_counter() - started) * 1000, 2),
        )
        return Response(200, b"".join(signatures), "text/plain")

    async def show_keys(self, request: Request) -> Response:
        """GET /v1/keys."""
        domain = _domain(request.query.get("domain", ""))
        return await self._records(domain)

    async def make_keys(self, request: Request) -> Response:
        """POST /v1/keys."""
        value = request.json()
        if not isinstance(value, dict) or not isinstance(value.get("domain"), str):
            raise BadRequest('the body must be {"domain": "..."}')
        domain = _domain(value["domain"])
        if problem := self._clock_problem():
            return Response.error(503, problem)
        async with self._making:
            try:
                made = await asyncio.to_thread(self._store.make, domain)
            except (BadKey, OSError) as error:
                return self._unusable(new_trace_id(), domain, error)
        for key in made:
            self._say_made(domain, key)
        return await self._records(domain)

    async def _records(self, domain: str) -> Response:
        try:
            keys = await self._keys(domain)
        except NoKey as error:
            return Response.error(404, str(error))
        except (BadKey, OSError) as error:
            return self._unusable(new_trace_id(), domain, error)
        records = [record(domain, keys[kind].selector, keys[kind].key) for kind in (RSA, ED25519) if kind in keys]
        return Response.of(
            {
                "records": [
                    {
                        "name": each.name,
                        "type": "TXT",
                        "value": each.value,
                        "chunks": list(each.chunks),
                        "presentation": each.presentation,
                    }
                    for each in records
                ]
            }
        )

    async def _keys(self, domain: str) -> dict[bytes, NamedKey]:
        if self._store.is_loaded(domain):
            keys = self._store.keys(domain)
        else:
            keys = await asyncio.to_thread(self._store.keys, domain)  # imports cryptography, parses PEM
        if f"keys of {domain}" in self._context.health.parts:
            self._context.health.ok(f"keys of {domain}")
        return keys

    def _refused(self, trace: str, domain: str, status: int, why: str) -> Response:
        self._context.events.emit("signed", trace, outcome="reject", domain=domain, reason=why)
        return Response.error(status, why)

    def _unusable(self, trace: str, domain: str, error: Exception) -> Response:
        why = f"the DKIM keys of {domain} cannot be used: {error}"
        self._context.health.fail(f"keys of {domain}", why)
        self._context.log("error", why)
        self._context.events.emit("key", trace, outcome="error", domain=domain, reason=why)
        return Response.error(503, why)

    def _say_made(self, domain: str, key: NamedKey) -> None:
        self._context.events.emit(
            "key",
            new_trace_id(),
            outcome="accept",
            domain=domain,
            selector=key.selector,
            reason=f"made a DKIM key for {domain}; publish its record (mailstead dkim show {domain})",
        )
        self._context.log("info", f"made the DKIM key {key.selector} for {domain}")


def _domain(text: str) -> str:
    """The stored form: A-labels in lower case, hence neither `..` nor a slash. Raises BadRequest."""
    try:
        return domain_name(text)
    except InvalidName as error:
        raise BadRequest(str(error)) from None
