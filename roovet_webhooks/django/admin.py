"""The record in Django's admin: to look at, to replay and to purge; nothing can be added, changed or deleted."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db import router
from django.db.models import Q
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.timezone import localtime

from roovet_webhooks._validation import number_and_noun
from roovet_webhooks.django.inbox import DjangoInbox
from roovet_webhooks.django.models import Delivery
from roovet_webhooks.django.receivers import inboxes
from roovet_webhooks.errors import DeliveryNotFound, InvalidTransition, PayloadError
from roovet_webhooks.inbox.history import summary
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

    ModelAdmin = admin.ModelAdmin[Delivery]
else:
    ModelAdmin = admin.ModelAdmin

_NOTHING = "-"
_MOST_AT_ONCE = 1000
_MOST_REASONS = 3
_MOST_OF_A_BODY = 20_000
# Of so many of the newest deliveries the values are offered as filters: to look at all would take long.
_NEWEST = 2000


# Columns that a condition in the address of the list may be about; the filters' own names are none.
_WITHOUT_BODY = {"last_error": "error_class", "short_error": "error_class", "attempts": "attempts_without_messages"}
_SHOWN = frozenset(
    {
        "id",
        "delivery_id",
        "endpoint",
        "tenant",
        "event",
        "resource",
        "state",
        "outcome",
        "has_body",
        "received_at",
        "ts",
    }
)


class _Filter(admin.SimpleListFilter):
    """Filters by a column. A value that is not offered can be written into the address."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:  # noqa: ANN401 - Django's signature
        """Return the values that are offered."""
        values = model_admin.get_queryset(request).order_by("-id").values_list(self.parameter_name, flat=True)
        return [(value, value) for value in sorted(set(values[:_NEWEST]))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002 - Django's signature
        """Return what has the chosen value."""
        return queryset if self.value() is None else queryset.filter(**{str(self.parameter_name): self.value()})


class _StateFilter(_Filter):
    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:  # noqa: ANN401, ARG002 - Django's signature
        return [(state.value, state.value) for state in State]


class _OutcomeFilter(_Filter):
    title = parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:  # noqa: ANN401, ARG002 - Django's signature
        return [(outcome.value, outcome.value.replace("_", " ")) for outcome in Outcome]


class _EndpointFilter(_Filter):
    title = parameter_name = "endpoint"


class _TenantFilter(_Filter):
    title = parameter_name = "tenant"


class _EventFilter(_Filter):
    title = parameter_name = "event"


def _without_body(names: Iterable[Any]) -> list[Any]:
    """Return columns for those who may not see bodies."""
    return [_WITHOUT_BODY.get(name, name) for name in names]


def _purge(inbox: DjangoInbox, number: int, *, tombstone: bool) -> None:
    if tombstone:
        message = "only its tombstone is left"
        raise InvalidTransition(message)
    inbox.purge(number)


def _may(request: HttpRequest, permission: str) -> bool:
    user: Any = getattr(request, "user", None)
    return user is not None and bool(user.has_perm(f"roovet_webhooks.{permission}"))


def _time(column: str, description: str) -> Any:  # noqa: ANN401 - what admin takes in list_display
    @admin.display(description=description, ordering=column)
    def shown(_admin: object, delivery: Delivery) -> str:
        moment = getattr(delivery, column)
        return _NOTHING if moment is None else _written(moment / 1000)

    return shown


def _written(moment: float) -> str:
    """Write a time to the second, in the project's time zone: what can be compared with a log."""
    return localtime(datetime.fromtimestamp(moment, UTC)).strftime("%Y-%m-%d %H:%M:%S %Z")


@admin.register(Delivery)
class DeliveryAdmin(ModelAdmin):
    """Recorded deliveries.

    Attributes:
        using: The database whose deliveries are shown; that of the mounted receivers' inbox when ``None``. A project
            with inboxes in several databases registers a subclass.
    """

    class Media:
        """Its own style sheet."""

        css: ClassVar[Any] = {"all": ["roovet_webhooks/admin.css"]}

    using: str | None = None
    change_form_template: ClassVar[Any] = "roovet_webhooks/change_form.html"

    received: Any = _time("received_at", "received")
    available: Any = _time("available_at", "due")
    leased: Any = _time("lease_until", "claimed until")
    handed: Any = _time("handed_at", "handed to an engine")
    finished: Any = _time("finished_at", "ended")

    list_display: Any = ("number", "arrived", "event", "resource", "status", "runs", "short_error")
    list_filter: ClassVar[Any] = (_StateFilter, _OutcomeFilter, _EndpointFilter, _TenantFilter, _EventFilter)
    search_fields: ClassVar[Any] = ("delivery_id", "resource")
    search_help_text: ClassVar[Any] = "The whole id of a delivery (dlv_…) or of a resource (ord_…), or a number."
    list_per_page = 50
    # Counting a million rows twice is what makes a page slow.
    show_full_result_count = False
    actions: Any = ("replay", "purge")
    fieldsets: ClassVar[Any] = (
        (
            None,
            {"fields": ["number", "delivery_id", "endpoint", "tenant", "event", "resource", "happened", "received"]},
        ),
        ("State", {"fields": ["status", "finished", "last_error", "succeeded"]}),
        ("Attempts", {"fields": ["fence", "failures", "crashes", "round", "available", "owner", "leased", "handed"]}),
        ("History", {"fields": ["attempts"]}),
        ("Content", {"fields": ["secret_name", "key", "body_shown"]}),
    )

    @property
    def _alias(self) -> str:
        mounted = inboxes()
        return self.using or (mounted[0].using if mounted else router.db_for_read(Delivery))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - Django's signature
        """Show one delivery, and what may be done to it: a tombstone cannot be replayed or purged, nor an open one."""
        row = self.get_object(request, object_id)
        ended = row is not None and row.has_body and row.state in {State.DONE, State.DEAD}
        permitted = {"replay": self.has_replay_permission(request), "purge": self.has_purge_permission(request)}
        possible = [action for action, may in permitted.items() if may and ended]
        context = {"possible": possible, "checkbox_name": helpers.ACTION_CHECKBOX_NAME, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def _inbox(self) -> DjangoInbox:
        alias = self._alias
        return next((inbox for inbox in inboxes() if inbox.using == alias), None) or DjangoInbox(alias)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        """Return the deliveries, without their bodies."""
        rows = super().get_queryset(request).using(self._alias).defer("body")
        # Who may see no messages sees classes, which the history has.
        return rows.defer("history") if _may(request, "view_delivery_body") else rows

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:  # noqa: ARG002 - Django's signature
        """Allow no condition in the address on a column that is not shown: by its answers it would tell the rest."""
        return lookup.split("__", maxsplit=1)[0] in _SHOWN and lookup.count("__") <= 1

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        queryset: QuerySet[Delivery],
        search_term: str,
    ) -> tuple[QuerySet[Delivery], bool]:
        """Find exactly what is asked for, by an index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        wanted = Q(delivery_id=term) | Q(resource=term)
        if term.isascii() and term.isdigit():
            wanted |= Q(id=int(term))
        return queryset.filter(wanted), False

    # What may be done

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Say no: deliveries are recorded by receivers."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:  # noqa: ARG002 - Django's signature
        """Say no: a record that can be edited is none."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:  # noqa: ARG002 - Django's signature
        """Say no: what is deleted would run again when it is sent again. A purge leaves a tombstone."""
        return False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may replay."""
        return _may(request, "replay_delivery")

    def has_purge_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may purge."""
        return _may(request, "purge_delivery")

    # What is shown

    def get_fieldsets(self, request: HttpRequest, obj: Delivery | None = None) -> Any:  # noqa: ANN401 - Django's signature
        """Leave the body out for those who may not see it: it may hold personal data."""
        fieldsets = super().get_fieldsets(request, obj)
        if _may(request, "view_delivery_body"):
            return fieldsets
        return [
            (title, {**options, "fields": _without_body(name for name in options["fields"] if name != "body_shown")})
            for title, options in fieldsets
        ]

    def get_list_display(self, request: HttpRequest) -> Any:  # noqa: ANN401 - Django's signature
        """Leave messages of errors out for those who may not see bodies: they may quote them."""
        shown = super().get_list_display(request)
        return shown if _may(request, "view_delivery_body") else _without_body(shown)

    @admin.display(description="number", ordering="id")
    def number(self, delivery: Delivery) -> int:
        """Return the number by which the command line knows it."""
        return delivery.id

    @admin.display(description="received", ordering="received_at")
    def arrived(self, delivery: Delivery) -> str:
        """Return when it was received, without the time zone, which a narrow column has no room for."""
        return _written(delivery.received_at / 1000).rpartition(" ")[0]

    @admin.display(description="runs", ordering="fence")
    def runs(self, delivery: Delivery) -> int:
        """Return how often it has been claimed."""
        return delivery.fence

    @admin.display(description="state", ordering="state")
    def status(self, delivery: Delivery) -> str:
        """Return the state, how it ended, and whether only a tombstone is left."""
        outcome = delivery.outcome
        ended = f" ({outcome.replace('_', ' ')})" if outcome else ""
        return f"{delivery.state}{ended}{'' if delivery.has_body else ', purged'}"

    @admin.display(description="last error", empty_value="")
    def short_error(self, delivery: Delivery) -> str:
        """Return the beginning of what went wrong."""
        return Truncator(delivery.last_error or "").chars(100)

    @admin.display(description="last error", empty_value="")
    def error_class(self, delivery: Delivery) -> str:
        """Return what went wrong without messages, which may quote the body."""
        attempts = self._inbox().read_history(delivery.history)
        if not attempts or delivery.last_error is None:
            return ""
        return summary(attempts[-1].outcome.value.replace("_", " "), attempts[-1].runs, messages=False)

    @admin.display(description="happened")
    def happened(self, delivery: Delivery) -> str:
        """Return when the event happened."""
        return _written(delivery.ts)

    @admin.display(description="handlers that succeeded")
    def succeeded(self, delivery: Delivery) -> str:
        """Return the names of the handlers that are not run again in this round, or of those that the last run had."""
        record = self._inbox().get(delivery.id)
        ran = [run.handler for run in record.history[-1].runs if run.outcome == "handled"] if record.history else []
        return ", ".join(record.succeeded or ran) or _NOTHING

    @admin.display(description="history")
    def attempts(self, delivery: Delivery) -> str:
        """Return the attempts, with messages and tracebacks."""
        return self._history(delivery, messages=True)

    @admin.display(description="history")
    def attempts_without_messages(self, delivery: Delivery) -> str:
        """Return the attempts, without what may quote the body."""
        return self._history(delivery, messages=False)

    def _history(self, delivery: Delivery, *, messages: bool) -> str:
        attempts = [(attempt, _written(attempt.ended_at)) for attempt in self._inbox().read_history(delivery.history)]
        return render_to_string("roovet_webhooks/history.html", {"attempts": attempts, "messages": messages})

    @admin.display(description="body")
    def body_shown(self, delivery: Delivery) -> str:
        """Return the body, laid out where it is JSON."""
        try:
            raw = self._inbox().body(delivery.id)
        except PayloadError as error:
            return str(error)
        if raw is None:
            return "erased"
        text = raw.decode("utf-8", "replace")
        with suppress(ValueError, RecursionError):  # as it came, then
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        return format_html("<pre>{}</pre>", text[:_MOST_OF_A_BODY])

    # What is done

    @admin.action(description="Replay selected deliveries", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        """Make deliveries ready again; ask first where that repeats effects, or runs what was too old."""
        chosen = self._chosen(request, queryset)
        again = [row for row in chosen if row.state == State.DONE or row.outcome == Outcome.TOO_OLD]
        # Only what was shown as done is confirmed, and not what has become so since.
        confirmed = {text for text in request.POST.getlist("confirmed") if text.isascii() and text.isdigit()}
        if again and not confirmed:
            question = (
                f"Done already, or too old to run on arrival: {len(again)} of {number_and_noun(len(chosen))}. "
                "A replay runs all handlers again, and repeats all of their effects."
            )
            return self._ask(request, chosen, "replay", question, confirms=again)
        inbox = self._inbox()
        self._each(request, chosen, "replayed", lambda number: inbox.replay(number, confirmed=str(number) in confirmed))
        return None

    @admin.action(description="Purge selected deliveries", permissions=["purge"])
    def purge(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        """Erase the bodies of ended deliveries, after asking."""
        chosen = self._chosen(request, queryset)
        whole = [row for row in chosen if row.has_body]
        if whole and "confirmed" not in request.POST:
            question = (
                f"What the inbox holds of {number_and_noun(len(whole))}, body and errors, will be erased for good, and "
                "can never be replayed then. A tombstone stays, so that what is sent again does not run again."
            )
            return self._ask(request, whole, "purge", question, confirms=whole)
        inbox = self._inbox()
        bodies = {row.id for row in whole}
        self._each(request, chosen, "purged", lambda number: _purge(inbox, number, tombstone=number not in bodies))
        return None

    def _chosen(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> list[Delivery]:
        chosen = list(queryset[: _MOST_AT_ONCE + 1])
        if len(chosen) > _MOST_AT_ONCE:
            message = f"Only the first {_MOST_AT_ONCE} are taken at a time; for more, use manage.py roovet_inbox."
            self.message_user(request, message, messages.WARNING)
        return chosen[:_MOST_AT_ONCE]

    def _ask(
        self,
        request: HttpRequest,
        chosen: Sequence[Delivery],
        action: str,
        question: str,
        *,
        confirms: Sequence[Delivery],
    ) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"{action.capitalize()} deliveries?",
            "question": question,
            "chosen": chosen,
            "confirms": confirms,
            "shown": chosen[:20],
            "action": action,
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "opts": self.opts,
        }
        return TemplateResponse(request, "roovet_webhooks/confirm.html", context)

    def _each(self, request: HttpRequest, chosen: Iterable[Delivery], done: str, step: Callable[[int], object]) -> None:
        """Take a step with each, and report how it went."""
        count = 0
        reasons: Counter[str] = Counter()
        for row in chosen:
            try:
                step(row.id)
            except (InvalidTransition, DeliveryNotFound) as error:
                reasons[re.sub(r"\bdelivery \d+", "it", str(error))] += 1
            else:
                count += 1
                self.log_change(request, row, done)
        if count:
            what = number_and_noun(count)
            self.message_user(request, f"{what} {'was' if count == 1 else 'were'} {done}.", messages.SUCCESS)
        for reason, number in reasons.most_common(_MOST_REASONS):
            self.message_user(
                request, f"{number} {'was' if number == 1 else 'were'} not {done}: {reason}.", messages.WARNING
            )
