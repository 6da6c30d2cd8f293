"""schemathesis, against the sandbox's own document: no undocumented status, no 5xx, no answer off the document."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance, unsupported_method

from roovet_webhooks.sandbox import Sandbox, sandbox_app

_sandbox = Sandbox(rate_limit=1_000_000)
schema = schemathesis.openapi.from_asgi("/openapi.json", sandbox_app(_sandbox, sends=False))


# The vendor documents no 405: another method is an unknown endpoint. No schema can say which cursors there are, or that
# two exclude each other.
NOT_SAID = [positive_data_acceptance, unsupported_method]


def check(case: Any) -> None:  # noqa: ANN401 - schemathesis's own
    # Unknown query parameters are ignored; all that a GET has is a query.
    excluded = [*NOT_SAID, negative_data_rejection] if case.method == "GET" else NOT_SAID
    case.call_and_validate(headers={"Authorization": f"Bearer {_sandbox.api_key}"}, excluded_checks=excluded)


@schema.parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_answer_is_as_documented(case: Any) -> None:  # noqa: ANN401 - schemathesis's own
    check(case)


@pytest.mark.long
@schema.parametrize()
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_answers_are_as_documented(case: Any) -> None:  # noqa: ANN401 - schemathesis's own
    check(case)
