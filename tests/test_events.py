"""Events: the envelope, the types users build, and errors that name a field and repeat no value."""

from __future__ import annotations

import dataclasses
import enum
import json
import pickle
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypedDict, cast

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, strategies as st
from support import NOW

from roovet_webhooks import (
    ConfigurationError,
    Event,
    EventTypeConflictError,
    EventValidationError,
    InvalidEnvelope,
    MalformedPayload,
    MissingExtraError,
    OrderCreated,
    PayloadError,
)
from roovet_webhooks.events import (
    MAX_TIMESTAMP,
    EventMeta,
    check_same_event,
    declared_name,
    decoder_of,
    is_event_name,
    is_name,
    parse_envelope,
)


def body(**fields: object) -> bytes:
    return json.dumps({"event": "transfer.settled", "id": "trf_1", "ts": NOW, **fields}).encode()


def build(wanted: object, **fields: object) -> Any:  # noqa: ANN401 - whatever was wanted
    raw = body(**fields)
    return decoder_of(wanted)(raw, parse_envelope(raw))


class TestEnvelope:
    def test_the_documented_payload(self) -> None:
        event = parse_envelope(b'{"event":"order.created","id":"ord_123","ts":1762782800}')
        assert event == Event(event="order.created", id="ord_123", ts=1762782800)
        assert event.occurred_at == datetime(2025, 11, 10, 13, 53, 20, tzinfo=UTC)
        assert event.extra == {}

    def test_unknown_fields_are_kept_and_read_only(self) -> None:
        event = parse_envelope(body(amount=12.34, nested={"a": [1, None]}, note="Grüße"))
        assert event.extra == {"amount": 12.34, "nested": {"a": [1, None]}, "note": "Grüße"}
        with pytest.raises(TypeError):
            cast("dict[str, object]", event.extra)["amount"] = 1

    @pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 5000], ids=["large", "negative", "many digits"])
    def test_a_number_beyond_all_bounds_is_no_error(self, number: bytes) -> None:
        event = parse_envelope(b'{"event":"a","id":"b","ts":1,"x":%s,"y":[1]}' % number)
        assert abs(cast("float", event.extra["x"])) == float("inf")
        assert event.extra["y"] == [1]

    def test_an_event_made_by_hand_has_nothing_extra(self) -> None:
        assert Event(event="a", id="b", ts=0).extra == {}

    @pytest.mark.parametrize("ts", [0, 1, MAX_TIMESTAMP])
    def test_every_accepted_ts_is_a_moment(self, ts: int) -> None:
        assert parse_envelope(body(ts=ts)).occurred_at.timestamp() == ts

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b'{"event":"a","id":"b","ts":1}x', "not JSON"),
            (b'\xef\xbb\xbf{"event":"a","id":"b","ts":1}', "not JSON"),
            (b'{"event":"a","id":"b","ts":NaN}', "not JSON"),
            (b'{"event":"a","id":"b","ts":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
            (b'{"event":"a","id":"b","ts":1,"x":"\xff"}', r"not UTF-8 \(byte 34\)"),
            (b'{"event":"a\\ud800","id":"b","ts":1}', "not JSON"),
            (b"[]", "not an object"),
            (b"null", "not an object"),
            (b'"text"', "not an object"),
            (b"1", "not an object"),
        ],
        ids=[
            "empty",
            "cut",
            "trailing",
            "BOM",
            "NaN",
            "deep",
            "latin-1",
            "surrogate",
            "list",
            "null",
            "text",
            "number",
        ],
    )
    def test_what_is_no_json_object(self, raw: bytes, reason: str) -> None:
        with pytest.raises(MalformedPayload, match=reason):
            parse_envelope(raw)

    @pytest.mark.parametrize("param", ["event", "id", "ts"])
    def test_a_missing_field_is_named(self, param: str) -> None:
        fields = {"event": "a", "id": "b", "ts": 1}
        del fields[param]
        with pytest.raises(InvalidEnvelope, match=f"the field '{param}'.*is missing") as caught:
            parse_envelope(json.dumps(fields).encode())
        assert caught.value.param == param

    @pytest.mark.parametrize(
        "value",
        ["", "x" * 256, "a\nb", "a\x00b", "\x7f", "a\u0085b", 1, None, True, ["a"], {"a": 1}],
        ids=ascii,
    )
    @pytest.mark.parametrize("param", ["event", "id"])
    def test_a_bad_name_is_refused_by_name(self, param: str, value: object) -> None:
        with pytest.raises(InvalidEnvelope, match=f"the field '{param}' must be a non-empty string") as caught:
            parse_envelope(body(**{param: value}))
        assert caught.value.param == param

    def test_a_value_that_cannot_be_read_is_refused_by_name(self) -> None:
        deep = b"[" * 100_000 + b"]" * 100_000
        with pytest.raises(PayloadError):
            parse_envelope(b'{"event":"a","id":' + deep + b',"ts":1}')
        with pytest.raises(InvalidEnvelope) as caught:
            parse_envelope(b'{"event":"a","id":1e999,"ts":1}')
        assert caught.value.param == "id"

    @pytest.mark.parametrize("value", ["x" * 255, "order.created", "日本", "a b", "\N{NO-BREAK SPACE}", "😀", "*"])
    def test_a_good_name(self, value: str) -> None:
        assert parse_envelope(body(event=value, id=value)).id == value

    @pytest.mark.parametrize("value", [-1, MAX_TIMESTAMP + 1, 1.0, 1.5, "1", None, True, 2**70, []], ids=ascii)
    def test_a_bad_ts_is_refused(self, value: object) -> None:
        with pytest.raises(InvalidEnvelope, match="an integer from 0 to 253402300799") as caught:
            parse_envelope(body(ts=value))
        assert caught.value.param == "ts"
        assert "missing" not in str(caught.value)

    def test_a_refusal_repeats_nothing_of_the_body(self) -> None:
        with pytest.raises(InvalidEnvelope) as caught:
            parse_envelope(body(id="s3cr3t\n"))
        assert "s3cr3t" not in repr(caught.value)
        assert caught.value.__cause__ is None

    @given(
        st.one_of(
            st.binary(),
            st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
                lambda inner: st.one_of(
                    st.lists(inner), st.dictionaries(st.sampled_from(["event", "id", "ts", "x"]), inner)
                ),
            ).map(lambda value: json.dumps(value).encode()),
            st.binary(max_size=12).map(lambda junk: body()[: 5 * len(junk)] + junk + body()[5 * len(junk) :]),
        )
    )
    def test_total(self, raw: bytes) -> None:
        try:
            event = parse_envelope(raw)
        except PayloadError:
            return
        assert event.event
        assert event.id
        assert event.occurred_at.tzinfo is UTC
        assert dict(event.extra) == {
            name: value for name, value in json.loads(raw).items() if name not in {"event", "id", "ts"}
        }


class Settled(Event, event="transfer.settled"):
    amount_cents: int
    currency: str = "USD"


@dataclasses.dataclass
class AsDataclass:
    id: str
    amount_cents: int


class AsTypedDict(TypedDict):
    id: str
    amount_cents: int


class AsStruct(msgspec.Struct, rename="camel"):
    id: str
    amount_cents: int


@attrs.define
class AsAttrs:
    id: str
    amount_cents: int


class AsModel(pydantic.BaseModel):
    id: str
    amount_cents: Annotated[int, pydantic.Field(gt=0)]


@pydantic.dataclasses.dataclass
class AsPydanticDataclass:
    id: str
    amount_cents: Annotated[int, pydantic.Field(gt=0)]


class Refund(pydantic.BaseModel):
    kind: Literal["refund"]
    id: str


class Charge(pydantic.BaseModel):
    kind: Literal["charge"]
    id: str


@dataclasses.dataclass
class HoldsModel:
    id: str
    money: AsModel | None = None


class TestTypes:
    @pytest.mark.parametrize(
        "wanted",
        [Settled, AsDataclass, AsAttrs, AsModel, AsPydanticDataclass],
        ids=lambda wanted: wanted.__name__,
    )
    def test_classes(self, wanted: type[Any]) -> None:
        value = build(wanted, amount_cents=999, new_field={"from": "the future"})
        assert type(value) is wanted
        assert (value.id, value.amount_cents) == ("trf_1", 999)

    def test_a_typed_dict(self) -> None:
        assert build(AsTypedDict, amount_cents=999, other=1) == {"id": "trf_1", "amount_cents": 999}

    def test_a_struct_with_names_of_its_own(self) -> None:
        assert build(AsStruct, amountCents=5) == AsStruct("trf_1", 5)

    def test_a_plain_dict(self) -> None:
        assert build(dict[str, object], x=1)["x"] == 1
        assert build(dict)["id"] == "trf_1"

    def test_a_union_of_models(self) -> None:
        assert type(build(Refund | Charge, kind="charge")) is Charge
        discriminated = Annotated[Refund | Charge, pydantic.Field(discriminator="kind")]
        assert type(build(discriminated, kind="refund")) is Refund

    def test_a_model_at_any_depth(self) -> None:
        assert build(AsModel | None, amount_cents=5) == AsModel(id="trf_1", amount_cents=5)
        assert build(HoldsModel, money={"id": "m", "amount_cents": 7}).money == AsModel(id="m", amount_cents=7)

    def test_an_unhashable_type(self) -> None:
        assert build(Annotated[dict[str, Any], ["not hashable"]], x=2)["x"] == 2

    def test_the_envelope_itself(self) -> None:
        raw = body(x=1)
        envelope = parse_envelope(raw)
        assert decoder_of(Event)(raw, envelope) is envelope

    def test_what_a_subclass_declares_is_not_extra(self) -> None:
        value = build(Settled, amount_cents=1, memo="hello")
        assert dict(value.extra) == {"memo": "hello"}
        assert value.occurred_at.year == 2025

    def test_a_renamed_field_is_not_extra(self) -> None:
        class Renamed(Event, event="transfer.settled", rename={"amount_cents": "amountCents"}):
            amount_cents: int

        value = build(Renamed, amountCents=1, memo="hello")
        assert (value.amount_cents, dict(value.extra)) == (1, {"memo": "hello"})

    @pytest.mark.parametrize(
        "wanted",
        [5, Settled(event="a", id="b", ts=1, amount_cents=1)],
        ids=["int", "instance"],
    )
    def test_what_nobody_can_build(self, wanted: object) -> None:
        with pytest.raises(ConfigurationError, match="cannot be built from JSON"):
            decoder_of(wanted)

    def test_without_pydantic_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Model(pydantic.BaseModel):
            id: str

        monkeypatch.setitem(sys.modules, "pydantic", None)
        with pytest.raises(MissingExtraError, match=r"roovet-webhooks\[pydantic\]") as caught:
            decoder_of(Model)
        assert caught.value.extra == "pydantic"

    def test_events_are_values(self) -> None:
        event = Settled(event="a", id="b", ts=1, amount_cents=5)
        assert event == Settled(event="a", id="b", ts=1, amount_cents=5)
        assert hash(event) == hash(Settled(event="a", id="b", ts=1, amount_cents=5))
        with pytest.raises(AttributeError):
            cast("Any", event).id = "c"

    def test_a_pickle_keeps_the_fields_and_leaves_the_body(self) -> None:
        event = build(Settled, amount_cents=5, memo="private")
        data = pickle.dumps(event)
        assert pickle.loads(data) == event  # noqa: S301 - made one line above
        assert b"private" not in data


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Choosy(Event, event="transfer.settled"):
    colour: Colour | None = None
    number: Number | None = None
    word: Literal["yes", "no"] | None = None
    count: Annotated[int, msgspec.Meta(ge=3)] | None = None
    text: Annotated[str, msgspec.Meta(pattern="^a+$")] | None = None
    table: dict[str, int] | None = None


class ByNumber(msgspec.Struct, tag_field="kind", tag=1):
    pass


class ByOtherNumber(msgspec.Struct, tag_field="kind", tag=2):
    pass


class ByName(msgspec.Struct, tag_field="kind", tag="one"):
    pass


class ByOtherName(msgspec.Struct, tag_field="kind", tag="two"):
    pass


class HoldsUnion(Event, event="transfer.settled"):
    part: ByNumber | ByOtherNumber | None = None
    named: ByName | ByOtherName | None = None
    keyed: dict[Literal["a", "b"], int] | None = None
    counted: dict[int, int] | None = None


class ChoosyModel(pydantic.BaseModel):
    colour: Colour | None = None
    count: Annotated[int, pydantic.Field(ge=3)] | None = None
    rows: list[dict[str, int]] | None = None


class TestRefusedEvents:
    @pytest.mark.parametrize(
        ("wanted", "fields", "param"),
        [
            (Choosy, {"colour": "s3cr3t"}, "$.colour"),
            (Choosy, {"colour": "it's s3cr3t, isn't it"}, "$.colour"),
            (Choosy, {"colour": "- at `$.elsewhere` s3cr3t"}, "$.colour"),
            (Choosy, {"colour": "x - at `$.elsewhere`' s3cr3t"}, "$.colour"),
            (Choosy, {"colour": "line\nbreak 's3cr3t'"}, "$.colour"),
            (Choosy, {"number": 424242}, "$.number"),
            (Choosy, {"word": "s3cr3t"}, "$.word"),
            (Choosy, {"count": 2}, "$.count"),
            (Choosy, {"count": "s3cr3t"}, "$.count"),
            (Choosy, {"text": "s3cr3t"}, "$.text"),
            (Choosy, {"table": {"s3cr3t": "x"}}, "$.table[...]"),
            (HoldsUnion, {"part": {"kind": 424242}}, "$.part.kind"),
            (HoldsUnion, {"part": {"kind": -424242}}, "$.part.kind"),
            (HoldsUnion, {"named": {"kind": "s3cr3t"}}, "$.named.kind"),
            (HoldsUnion, {"named": {"kind": "line\ns3cr3t"}}, "$.named.kind"),
            (HoldsUnion, {"named": {"kind": "it's\n\ns3cr3t - at `$.x`\n' - at `key` in `$.y`"}}, "$.named.kind"),
            (HoldsUnion, {"keyed": {"s3cr3t": 1}}, "$.keyed"),
            (HoldsUnion, {"keyed": {"it's\ns3cr3t - at `key` in `$.x`": 1}}, "$.keyed"),
            (HoldsUnion, {"counted": {"s3cr3t": 1}}, "$.counted"),
            (AsPydanticDataclass, {"amount_cents": -1}, "$.amount_cents"),
            (AsModel, {"amount_cents": 0}, "$.amount_cents"),
            (ChoosyModel, {"colour": "s3cr3t", "count": 1}, "$.colour"),
            (ChoosyModel, {"count": 1, "rows": "s3cr3t"}, "$.count"),
            (ChoosyModel, {"colour": "s3cr3t"}, "$.colour"),
            (ChoosyModel, {"count": 2}, "$.count"),
            (ChoosyModel, {"rows": [{"k": 1}, {"k": "s3cr3t"}]}, "$.rows[1].k"),
            (AsDataclass, {"amount_cents": "s3cr3t"}, "$.amount_cents"),
            (AsModel, {"amount_cents": "s3cr3t"}, "$.amount_cents"),
        ],
    )
    def test_the_field_is_named_and_no_value_repeated(
        self, wanted: type, fields: dict[str, object], param: str
    ) -> None:
        with pytest.raises(EventValidationError, match=f"transfer.settled does not fit {wanted.__name__}: ") as caught:
            build(wanted, **fields)
        error = caught.value
        assert (error.event, error.param) == ("transfer.settled", param)
        told = f"{error} {error!r} {dict(error.evidence)} {pickle.dumps(error)!r}"
        assert "s3cr3t" not in told
        assert "424242" not in told
        assert error.__cause__ is None
        assert error.__suppress_context__
        # Where it is stands in the sentence too.
        assert param in str(error)

    @pytest.mark.parametrize("wanted", [AsDataclass | None, AsDataclass | AsModel, AsTypedDict | None], ids=repr)
    def test_a_type_without_a_name_is_shown_as_it_is(self, wanted: object) -> None:
        with pytest.raises(EventValidationError) as caught:
            build(wanted, amount_cents="s3cr3t")
        assert f"transfer.settled does not fit {wanted!r}: " in str(caught.value)
        assert "s3cr3t" not in str(caught.value)

    @pytest.mark.parametrize("wanted", [Choosy, dict[str, Any], AsDataclass | None], ids=repr)
    def test_what_is_nested_too_deeply_is_refused_like_any_other(self, wanted: object) -> None:
        deep = body()[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        with pytest.raises(EventValidationError, match="does not fit"):
            decoder_of(wanted)(deep, parse_envelope(body()))

    def test_a_missing_field(self) -> None:
        with pytest.raises(EventValidationError, match="missing required field `amount_cents`") as caught:
            build(Settled)
        assert caught.value.param is None

    def test_a_model_of_another_shape(self) -> None:
        with pytest.raises(EventValidationError, match=r"missing - at `\$.amount_cents`"):
            build(AsModel)


class TestEventNames:
    @pytest.mark.parametrize("name", ["a.b", "order.created", "order.item.added", "日本.語", ".".join(["x" * 127] * 2)])
    def test_words_with_dots_between_them(self, name: str) -> None:
        assert is_event_name(name)

    @pytest.mark.parametrize(
        "name",
        [
            *("", "order", ".", "order.", ".created", "order..created", "order.*", "*", "*.*", "a.b ", " a.b", "a. b"),
            *("a.b\u00a0", "a.b\u2003c", "a.b\n", "a.b\x00", "x" * 255 + ".y", None, 5, b"a.b", ["a", "."]),
        ],
        ids=lambda name: ascii(name)[:20],
    )
    def test_anything_else(self, name: object) -> None:
        assert not is_event_name(name)

    def test_no_control_character_is_part_of_a_name(self) -> None:
        names = {number for number in range(0x180) if is_name(f"a{chr(number)}b")}
        assert names == {*range(0x20, 0x7F), *range(0xA0, 0x180)}


class TestDeclaredNames:
    def test_the_documented_event(self) -> None:
        assert declared_name(OrderCreated) == "order.created"
        assert declared_name(Event) is None
        assert declared_name(AsDataclass) is None

    def test_a_subclass_without_a_name_inherits_none(self) -> None:
        class More(OrderCreated):
            more: int = 0

        assert declared_name(More) is None

    @pytest.mark.parametrize("name", ["", "order.*", "*", "a\nb", "x" * 256, 5], ids=ascii)
    def test_a_name_that_is_none_is_refused(self, name: object) -> None:
        with pytest.raises(ConfigurationError, match="class Wrong: event= must be a name"):
            EventMeta("Wrong", (Event,), {}, event=cast("str", name))

    def test_two_classes_for_one_event(self) -> None:
        class Other(Event, event="transfer.settled"):
            pass

        with pytest.raises(
            EventTypeConflictError, match=r"Settled and .*Other both declare the event 'transfer.settled'"
        ):
            check_same_event(Settled, Other)
        check_same_event(Settled, Settled)
        check_same_event(Settled, OrderCreated)


@pytest.mark.parametrize("tail", [b"", b',"x":1e999', b',"x":' + b"9" * 5000])
def test_integers_of_extra_stay_integers(tail: bytes) -> None:
    raw = b'{"event":"a.b","id":"i","ts":1,"amount_cents":9007199254740993,"list":[18446744073709551617]%s}' % tail
    extra = parse_envelope(raw).extra
    assert extra["amount_cents"] == 9007199254740993
    assert extra["list"] == [18446744073709551617]
    assert type(extra["amount_cents"]) is int
    assert extra.get("x", float("inf")) == float("inf")
