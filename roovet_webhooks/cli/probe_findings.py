"""What the answers to a probe mean: what stands between a sender and the receiver, each with its remedy. No I/O."""

from __future__ import annotations

import ipaddress
import json
import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

from roovet_webhooks.errors import VerificationError
from roovet_webhooks.explain.codes import Code
from roovet_webhooks.findings import Finding
from roovet_webhooks.signing.verifier import DEFAULT_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roovet_webhooks.cli.posting import Answer, Target

CLOCK_SECONDS = 60.0
"""How far a server's clock may be off before it is reported; the tolerance is five times as much."""

PROBLEMS: Mapping[str, Code] = {
    "no_tls": Code(
        "The URL is not https: whoever is on the way can read and replay deliveries.",
        "Serve the endpoint by https, and give Roovet that URL.",
    ),
    "no_answer": Code(
        "There was no answer.",
        "Check the host, the port and the firewall; the URL must be reachable from outside.",
    ),
    "timeout": Code(
        "There was no complete answer in time.",
        "Record deliveries in a durable inbox and let a worker run the handlers; check that no proxy holds them up.",
    ),
    "certificate": Code(
        "The TLS certificate does not hold.",
        "Renew it, serve the whole chain, and use the name that it was made out for.",
    ),
    "slow_answer": Code(
        "The answer came late; a sender may have given up and try again.",
        "Record deliveries in a durable inbox and let a worker run the handlers.",
    ),
    "clock_off": Code(
        "The clocks of the server and of this machine differ.",
        "Keep both in time with NTP: a delivery is refused where they differ by more than the tolerance.",
    ),
    "redirect_slash": Code(
        "The path is redirected to the same one with or without a slash at its end. No sender follows it.",
        "Give Roovet the path as it is mounted.",
    ),
    "redirect_https": Code(
        "The request is redirected to https. No sender follows it.",
        "Give Roovet the https URL. Where it was one, tell the application that its proxy ends TLS "
        "(SECURE_PROXY_SSL_HEADER, --proxy-headers, ProxyFix).",
    ),
    "redirect_host": Code(
        "The request is redirected to another host. No sender follows it.",
        "Give Roovet the URL with the host that answers itself.",
    ),
    "redirect_login": Code(
        "The request is redirected to a login page. No sender follows it.",
        "Exempt the path from the login: the signature proves the sender.",
    ),
    "redirect": Code(
        "The request is redirected. No sender follows it.",
        "Give Roovet the URL that answers itself.",
    ),
    "unauthorized": Code(
        "Something in front of the receiver asks for credentials.",
        "Exempt the path from authentication: the signature proves the sender.",
    ),
    "forbidden_csrf": Code(
        "CSRF protection refuses the request.",
        "Exempt the path from it; dispatch_view and verified_webhook do so in Django.",
    ),
    "forbidden_firewall": Code(
        "A firewall or a bot protection refuses the request.",
        "Let POST requests to this path through, without a challenge.",
    ),
    "forbidden": Code(
        "Something in front of the receiver forbids the request.",
        "Find what answers 403, in the proxy's log or the application's, and exempt the path.",
    ),
    "not_found": Code(
        "Nothing is mounted at this path.",
        "Compare the path with the one that is mounted, its prefix and the slash at its end.",
    ),
    "method_not_allowed": Code(
        "What answers at this path takes no POST.",
        "Compare the path with the one that is mounted.",
    ),
    "host_refused": Code(
        "The application does not know the host of this URL.",
        "Add it to ALLOWED_HOSTS, or to the hosts of TrustedHostMiddleware.",
    ),
    "rate_limited": Code(
        "A rate limit refuses the request.",
        "Exempt the path: deliveries come in bursts.",
    ),
    "bad_gateway": Code(
        "The proxy could not reach the application.",
        "Start the application, and compare the address that the proxy has of it.",
    ),
    "html": Code(
        "A web page answers in place of the receiver.",
        "Compare the path with the one that is mounted; find which page it is.",
    ),
    "not_ready": Code(
        "The receiver has no handler or no secret, or one of them cannot be used.",
        "Its log says which, at receiver.not_ready.",
    ),
    "unavailable": Code(
        "The receiver cannot record deliveries at this moment.",
        "Its log says why, at inbox.unavailable or inbox.full.",
    ),
    "server_error": Code(
        "The application failed.",
        "Its log says why. The code body_already_read there means that something consumed the body first.",
    ),
    "handler_failed": Code(
        "A handler failed on the test event.",
        "The log says which, at handler.failed. Handlers of every event, and fallbacks, see the test event too.",
    ),
    "headers_lost": Code(
        "The Content-Type did not arrive as it was sent, or a Content-Encoding was added.",
        "Let the proxy pass the headers and the body as they are.",
    ),
    "length_lost": Code(
        "The length of the body did not arrive.",
        "Let the proxy pass the Content-Length, rather than send the body in chunks.",
    ),
    "body_lost": Code(
        "The body did not arrive whole.",
        "Find what reads it, or cuts it off, before the receiver.",
    ),
    "body_altered": Code(
        "The body is altered on the way: a delivery is refused or accepted by how its JSON is written.",
        "Find what parses the body and writes it again, or strips it, before the receiver; let it pass as it came.",
    ),
    "secret_differs": Code(
        "A delivery that was signed with this secret is refused.",
        "Compare the secrets, by roovet-webhooks verify or in the receiver's log; check that the proxy passes "
        "X-Roovet-Signature, and that nothing alters the body.",
    ),
    "accepts_anything": Code(
        "A delivery that Roovet has not signed is accepted.",
        "Nothing verifies at this path, or something else answers: mount the receiver there.",
    ),
    "not_a_receiver": Code(
        "What answers is no receiver of this package, or something has replaced its answer.",
        "Compare the path with the one that is mounted; let the proxy pass the answers of the application.",
    ),
}
"""Every problem that a probe can report."""

_BY_STATUS = {
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    410: "not_found",
    429: "rate_limited",
    502: "bad_gateway",
    504: "bad_gateway",
}
# By the type of an error of ours: what a receiver answers to a request that reached it changed, or failed in it.
_BY_TYPE: Mapping[object, str | None] = {
    "not_ready": "not_ready",
    "unavailable": "unavailable",
    "in_flight": "unavailable",
    "handler_failed": "handler_failed",
    "internal_error": "server_error",
    "unsupported_media_type": "headers_lost",
    "length_required": "length_lost",
    "invalid_request": "body_lost",
    "timeout": "body_lost",
    "method_not_allowed": "method_not_allowed",
    "verification_failed": None,
}
_PAGES = (b"<!doctype html", b"<html")
_FIREWALLS = (
    b"cloudflare",
    b"akamai",
    b"sucuri",
    b"incapsula",
    b"imperva",
    b"captcha",
    b"firewall",
    b"request blocked",
)
_LOGIN = re.compile(r"(?:^|[/.])(?:log-?in|sign-?in|sso|oauth2?|auth)(?:$|[/.])")


def problem(code: str, detail: str = "") -> Finding:
    """Return a problem with the words of its code, and what was seen."""
    meaning, remedy = PROBLEMS[code]
    return Finding(code, f"{meaning} ({detail})" if detail else meaning, remedy)


def of_target(target: Target) -> list[Finding]:
    """Return what is wrong with a URL before anything is sent to it."""
    return [] if target.secure or _is_local(target.host) else [problem("no_tls")]


def of_answer(target: Target, answer: Answer, *, now: float, slow: float) -> list[Finding]:
    """Return what is wrong with any answer, whatever was sent.

    Args:
        target: Where it was sent.
        answer: The answer.
        now: The time of this machine when it came, Unix seconds.
        slow: Seconds after which an answer is late.
    """
    found: list[Finding] = []
    if answer.seconds > slow:
        found.append(problem("slow_answer", f"after {answer.seconds:.1f} s"))
    skew = clock_skew(answer, now)
    if skew is not None and abs(skew) > CLOCK_SECONDS:
        found.append(problem("clock_off", f"the server's is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"))
    if (code := _in_the_way(target, answer)) is not None:
        location = answer.header("Location")
        where = f" to {location}" if code.startswith("redirect") and location else ""
        found.append(problem(code, f"{answer.status}{where}"))
    return found


def of_refusal(answer: Answer) -> list[Finding]:
    """Return what is wrong with an answer to a delivery that nobody signed, where nothing stood in the way."""
    if answer.ok:
        return [problem("accepts_anything", str(answer.status))]
    return [] if is_refusal(answer) else [problem("not_a_receiver", str(answer.status))]


def is_refusal(answer: Answer) -> bool:
    """Whether a receiver has refused a delivery because it could not be verified."""
    # FastAPI words the refusal of a dependency in its own shape.
    return answer.status == 400 and VerificationError.public_message.encode() in answer.body  # noqa: PLR2004 - Bad Request


def clock_skew(answer: Answer, now: float) -> float | None:
    """Return by how many seconds the server's clock is ahead of ours, or ``None`` where it does not say.

    Args:
        answer: An answer with a ``Date`` header, which counts whole seconds.
        now: The time of this machine when it came, Unix seconds.
    """
    try:
        return parsedate_to_datetime(answer.header("Date") or "").timestamp() - now
    except (ValueError, OverflowError):
        return None


def refuses_for_the_clock(answer: Answer, now: float) -> bool:
    """Whether the clocks differ by so much that a good delivery is refused for it."""
    return abs(clock_skew(answer, now) or 0.0) > DEFAULT_TOLERANCE


def _in_the_way(target: Target, answer: Answer) -> str | None:
    """Return the code of what stands between the sender and the receiver, or ``None``."""
    if 300 <= answer.status < 400:  # noqa: PLR2004 - the class of redirects
        return _redirect(target, answer)
    kind = _type_of(answer)
    if kind in _BY_TYPE or is_refusal(answer):
        return _BY_TYPE.get(kind)
    return _of_another(answer)


def _of_another(answer: Answer) -> str | None:
    """Return the code of who answers in place of a receiver, or ``None`` where that cannot be told."""
    body = answer.body.lower()
    if answer.status == 403:  # noqa: PLR2004 - Forbidden
        return _forbidden(answer, body)
    if answer.status == 400 and (b"host" in body or b"bad request (400)" in body):  # noqa: PLR2004 - Bad Request
        return "host_refused"
    if answer.status in _BY_STATUS or answer.status >= 500:  # noqa: PLR2004 - the class of a server's errors
        return _BY_STATUS.get(answer.status, "server_error")
    is_page = "html" in (answer.header("Content-Type") or "").lower() or body.lstrip().startswith(_PAGES)
    return "html" if is_page else None


def _redirect(target: Target, answer: Answer) -> str:
    here = urlsplit(str(target))
    there = urlsplit(urljoin(str(target), answer.header("Location") or ""))
    if _LOGIN.search(f"{there.hostname}{there.path.lower()}") or "next=" in there.query:
        return "redirect_login"
    if here.hostname != there.hostname:
        return "redirect_host"
    if (here.scheme, there.scheme) == ("http", "https") or here == there:
        # To itself: an application behind a proxy that ends TLS believes that it was http.
        return "redirect_https"
    if here.path != there.path and here.path.rstrip("/") == there.path.rstrip("/"):
        return "redirect_slash"
    return "redirect"


def _forbidden(answer: Answer, body: bytes) -> str:
    if b"csrf" in body or b"cross-site" in body:
        return "forbidden_csrf"
    marks = body + b" ".join(f"{name}: {value}".encode() for name, value in answer.headers).lower()
    return "forbidden_firewall" if any(mark in marks for mark in _FIREWALLS) else "forbidden"


def _type_of(answer: Answer) -> object:
    """Return the type of an error in the vendor's shape, which other services share, or ``None``."""
    try:
        content: Any = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    error: Any = cast("dict[str, Any]", content).get("error") if isinstance(content, dict) else None
    kind: object = cast("dict[str, object]", error).get("type") if isinstance(error, dict) else None
    return kind if isinstance(kind, str) else None


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
