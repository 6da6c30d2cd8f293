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
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.timezone import localtime

from roovet_webhooks.django.inbox import DjangoInbox
from roovet_webhooks.django.models import Delivery
from roovet_webhooks.django.receivers import inboxes
from roovet_webhooks.errors import DeliveryNotFound, InvalidTransition, PayloadError
from roovet_webhooks.inbox.protocol import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

    ModelAdmin = admin.ModelAdmin[Delivery]
else:
    ModelAdmin = admin.ModelAdmin

_MOST_AT_ONCE = 1000
_MOST_REASONS = 3
_MOST_OF_A_BODY = 20_000
# Of so many of the newest deliveries the values are offered as filters: to look at all would take long.
_NEWEST = 2000


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


def _may(request: HttpRequest, permission: str) -> bool:
    user: Any = request.user
    return bool(user.has_perm(f"roovet_webhooks.{permission}"))


def _time(column: str, description: str) -> Any:  # noqa: ANN401 - what admin takes in list_display
    @admin.display(description=description, ordering=column)
    def shown(_admin: object, delivery: Delivery) -> str | None:
        moment = getattr(delivery, column)
        return None if moment is None else _written(moment / 1000)

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

    using: str | None = None

    received: Any = _time("received_at", "received")
    available: Any = _time("available_at", "due")
    leased: Any = _time("lease_until", "claimed until")
    handed: Any = _time("handed_at", "handed to an engine")
    finished: Any = _time("finished_at", "ended")

    list_display: Any = ("short_id", "event", "resource", "state", "outcome", "fence", "received", "short_error")
    list_filter: ClassVar[Any] = (_StateFilter, _OutcomeFilter, _EndpointFilter, _TenantFilter, _EventFilter)
    search_fields: ClassVar[Any] = ("delivery_id", "resource")
    search_help_text: ClassVar[Any] = "The whole id of a delivery (dlv_…) or of a resource (ord_…), or a number."
    list_per_page = 50
    # Counting a million rows twice is what makes a page slow.
    show_full_result_count = False
    actions: Any = ("replay", "purge")
    fieldsets: ClassVar[Any] = (
        (None, {"fields": ["delivery_id", "id", "endpoint", "tenant", "event", "resource", "happened", "received"]}),
        ("State", {"fields": ["state", "outcome", "finished", "last_error", "succeeded"]}),
        ("Attempts", {"fields": ["fence", "failures", "crashes", "round", "available", "owner", "leased", "handed"]}),
        ("Content", {"fields": ["secret_name", "key", "body_shown"]}),
    )

    @property
    def _alias(self) -> str:
        mounted = inboxes()
        return self.using or (mounted[0].using if mounted else router.db_for_read(Delivery))

    def _inbox(self) -> DjangoInbox:
        alias = self._alias
        return next((inbox for inbox in inboxes() if inbox.using == alias), None) or DjangoInbox(alias)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        """Return the deliveries, without their bodies."""
        return super().get_queryset(request).using(self._alias).defer("body")

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
            (title, {**options, "fields": [name for name in options["fields"] if name != "body_shown"]})
            for title, options in fieldsets
        ]

    @admin.display(description="delivery", ordering="delivery_id")
    def short_id(self, delivery: Delivery) -> str:
        """Return the beginning of the id, which tells deliveries apart."""
        return Truncator(delivery.delivery_id).chars(13)

    @admin.display(description="last error")
    def short_error(self, delivery: Delivery) -> str:
        """Return the beginning of what went wrong."""
        return Truncator(delivery.last_error or "").chars(100)

    @admin.display(description="happened")
    def happened(self, delivery: Delivery) -> str:
        """Return when the event happened."""
        return _written(delivery.ts)

    @admin.display(description="handlers that succeeded")
    def succeeded(self, delivery: Delivery) -> str:
        """Return the names of the handlers that are not run again in this round."""
        return ", ".join(self._inbox().get(delivery.id).succeeded)

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
        confirmed = {int(number) for number in request.POST.getlist("confirmed")}
        if again and not confirmed:
            question = (
                f"{len(again)} of these {len(chosen)} deliveries are done, or were too old to run when they arrived. "
                "A replay runs their handlers, and repeats all of their effects."
            )
            return self._ask(request, chosen, "replay", question, confirms=again)
        inbox = self._inbox()
        self._each(request, chosen, "replayed", lambda number: inbox.replay(number, confirmed=number in confirmed))
        return None

    @admin.action(description="Purge selected deliveries", permissions=["purge"])
    def purge(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        """Erase the bodies of ended deliveries, after asking."""
        chosen = self._chosen(request, queryset)
        if "confirmed" not in request.POST:
            question = (
                f"The bodies and errors of {len(chosen)} deliveries will be erased for good; they cannot be replayed "
                "then. Their tombstones stay, so that they do not run again when they are sent again."
            )
            return self._ask(request, chosen, "purge", question, confirms=chosen)
        self._each(request, chosen, "purged", self._inbox().purge)
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
            self.message_user(request, f"{count} deliveries were {done}.", messages.SUCCESS)
        for reason, number in reasons.most_common(_MOST_REASONS):
            self.message_user(request, f"{number} were not {done}: {reason}.", messages.WARNING)
