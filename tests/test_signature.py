"""What a function takes: checked at enqueue, decoded to its annotated types."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Raw, Struct

from rmqarq import ConfigurationError, Context, DecodeError, EncodeError
from rmqarq.signature import Signature

if TYPE_CHECKING:
    from fractions import Fraction  # deliberately not there at run time

    from rmqarq.wire.codec import Serializer

SERIALIZERS: tuple[Serializer, ...] = ("json", "msgpack")
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Point:
    x: int
    y: float = 0.0
    tags: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Incomparable:
    x: int


class Order(Struct):
    id: UUID
    lines: list[Point]
    total: Decimal


class Options(TypedDict, total=False):
    depth: int
    colour: Colour


class Pair(NamedTuple):
    left: int
    right: str


class User(pydantic.BaseModel):
    name: str
    born: date
    address: Address | None = None


class Address(pydantic.BaseModel):
    city: str


class Aliased(pydantic.BaseModel):
    user_id: int = pydantic.Field(alias="userId")


class Custom:
    """Nothing that a message could hold."""


class Box(Struct, Generic[T]):
    value: T


@dataclass
class Db:
    url: str = ""


UserId = NewType("UserId", int)
Ctx = Context
DbContext = Context[Db]


def without_address(value: object) -> str:
    """Name a case alike in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def trip(
    fn: Callable[..., Any], serializer: Serializer, *args: Any, **kwargs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Bind, encode with all checks, and decode as a worker does."""
    signature = Signature(fn, "job")
    bound = signature.bind(args, kwargs)
    raw = signature.encode(serializer, *bound, validate=True)
    return Signature(fn, "job").decode(serializer, *raw)


def takes(hint: Any) -> Callable[..., Any]:
    """Make a function with one parameter `value` of a type."""

    def job(value: Any) -> None: ...

    job.__annotations__["value"] = hint
    return job


# --- how callers may call ---


def plain(a: int, b: str = "x", *, c: int = 0) -> None: ...
def rest(a: int, *others: int, **named: str) -> None: ...
def only(a: int, /, b: int) -> None: ...
def needs_keyword(a: int, *, c: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (plain, (), {}),
        (plain, (1, "b", 3), {}),
        (plain, (1,), {"a": 1}),
        (plain, (1,), {"d": 1}),
        (only, (), {"a": 1, "b": 2}),
        (only, (1,), {}),
        (needs_keyword, (1,), {}),
        (needs_keyword, (1, 2), {}),
        (rest, (), {}),
    ],
)
def test_a_call_that_python_would_refuse_is_a_type_error_in_its_words(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        fn(*args, **kwargs)
    with pytest.raises(TypeError) as expected:
        inspect.signature(fn).bind(*args, **kwargs)
    with pytest.raises(TypeError) as caught:
        Signature(fn, "job").bind(args, kwargs)
    assert str(caught.value) == f"job() {expected.value}"


@given(
    st.sampled_from([plain, rest, only, needs_keyword]),
    st.lists(st.integers(), max_size=4).map(tuple),
    st.dictionaries(st.sampled_from("abcd"), st.integers(), max_size=4),
)
def test_exactly_the_calls_that_python_takes_are_taken(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        expected = inspect.signature(fn).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            Signature(fn, "job").bind(args, kwargs)
    else:
        bound = Signature(fn, "job").bind(args, kwargs)
        again = inspect.signature(fn).bind(*bound[0], **bound[1])
        assert again.arguments == expected.arguments


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (plain, (1,), {}),
        (plain, (1, "b"), {"c": 3}),
        (plain, (), {"c": 3, "a": 1}),
        (only, (1, 2), {}),
        (only, (1,), {"b": 2}),
        (needs_keyword, (1,), {"c": 2}),
        (rest, (1, 2, 3), {"x": "y"}),
        (rest, (1,), {}),
        (lambda: None, (), {}),
    ],
)
def test_every_kind_of_parameter_arrives_where_it_was_put(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], serializer: Serializer
) -> None:
    came = trip(fn, serializer, *args, **kwargs)
    expected = inspect.signature(fn).bind(*args, **kwargs).arguments
    assert inspect.signature(fn).bind(*came[0], **came[1]).arguments == expected


def test_a_default_is_left_to_the_function_so_that_none_is_shared() -> None:
    def job(a: int, items: list[int] = []) -> list[int]:  # noqa: B006 - the point
        return items

    args, kwargs = trip(job, "json", 1)
    assert (args, kwargs) == ((1,), {})
    assert job(*args, **kwargs) is inspect.signature(job).parameters["items"].default


# --- the context ---


def bare(ctx: Context, n: int) -> None: ...
def typed(job: Context[Db], n: int) -> None: ...
def alias(ctx: Ctx, n: int) -> None: ...
def typed_alias(ctx: DbContext, n: int) -> None: ...
def quoted(ctx: "Context[Db]", n: int) -> None: ...  # noqa: UP037 - the point
def alone(ctx: Context) -> None: ...


@pytest.mark.parametrize("fn", [bare, typed, alias, typed_alias, quoted, alone])
def test_a_context_is_known_by_its_annotation_and_hidden_from_callers(
    fn: Callable[..., Any],
) -> None:
    signature = Signature(fn, "job")
    assert signature.takes_context
    assert [each.name for each in signature.parameters] in ([], ["n"])
    signature.prepare()


@pytest.mark.parametrize("hint", [Context, Context[Db], Ctx, DbContext])
def test_a_context_is_known_by_an_evaluated_annotation_too(hint: Any) -> None:
    assert Signature(takes(hint), "job").takes_context


@pytest.mark.parametrize("hint", [int, Any, object, Db, "int"])
def test_other_first_parameters_are_arguments(hint: Any) -> None:
    assert not Signature(takes(hint), "job").takes_context


def test_ctx_without_an_annotation_is_refused_with_what_to_write() -> None:
    def job(ctx, n: int) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(ConfigurationError, match="write 'ctx: Context'"):
        Signature(job, "job")


def test_a_context_that_is_not_first_is_refused() -> None:
    def job(n: int, ctx: Context) -> None: ...

    with pytest.raises(ConfigurationError, match="'ctx' in the task job"):
        Signature(job, "job").prepare()


def test_a_context_by_keyword_only_is_refused() -> None:
    def job(*, ctx: Context, n: int) -> None: ...

    with pytest.raises(ConfigurationError):
        Signature(job, "job").prepare()


# --- annotations ---


def test_an_annotation_for_type_checkers_only_is_refused_with_the_fix() -> None:
    def job(a: int, share: Fraction) -> None: ...

    signature = Signature(job, "job")
    assert signature.bind((1, 2), {}) == ((1, 2), {})
    with pytest.raises(ConfigurationError) as caught:
        signature.prepare()
    text = str(caught.value)
    assert "'share' in the task job" in text
    assert "import the type at module level, outside of 'if TYPE_CHECKING'" in text


def test_annotations_are_looked_up_late_so_that_a_task_may_stand_first() -> None:
    signature = Signature(before_its_class, "job")
    args, _ = signature.decode("json", Raw(b'[{"n":1}]'), Raw(b""))
    assert args == (After(1),)


def before_its_class(value: After) -> None: ...


class After(Struct):
    n: int


def test_a_parameter_without_annotation_takes_anything_native() -> None:
    def job(a, b=None) -> None: ...  # type: ignore[no-untyped-def]

    value = {"a": [1, 2.5, None, True, "x"], "b": {}}
    assert trip(job, "json", value) == ((value,), {})


def test_a_hint_quoted_under_postponed_evaluation_is_resolved() -> None:
    Signature(takes("'Point'"), "job").prepare()


def test_a_quoted_part_of_a_hint_is_resolved() -> None:
    Signature(takes(list["Point"]), "job").prepare()


@pytest.mark.parametrize(
    "hint",
    [
        str | bytes,
        Custom,
        list[Custom],
        dict[str, list[Custom]],
        Custom | None,
        tuple[int, Custom],
        Box[Custom],
        Callable[[], None],
        complex,
        Point | Order,
    ],
)
def test_a_type_that_no_message_can_hold_is_refused_by_task_and_parameter(
    hint: Any,
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Signature(takes(hint), "resize").prepare()
    assert "the annotation of 'value' in the task resize" in str(caught.value)


# --- values that arrive as they were sent ---

MOMENT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
A_UUID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
AN_ORDER = Order(A_UUID, [Point(1, 2.5, ["a"]), Point(2)], Decimal("10.20"))
A_USER = User(name="Ann", born=date(1990, 1, 2), address=Address(city="Bonn"))

ARRIVING: list[tuple[Any, Any]] = [
    (int, 2**62),
    (int, -1),
    (float, 1.5),
    (str, "héllo ✓ 漢字 \U0001f600"),
    (bool, True),
    (None, None),
    (bytes, b"\x00\xff binary"),
    (bytearray, bytearray(b"\x00\xff")),
    (datetime, MOMENT),
    (datetime, datetime(2030, 1, 2, 3, 4)),
    (date, date(2030, 1, 2)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(days=1, microseconds=5)),
    (Decimal, Decimal("1.10")),
    (UUID, A_UUID),
    (set[int], {1, 2, 3}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (list[tuple[int, int]], [(1, 2), (3, 4)]),
    (dict[int, str], {1: "a"}),
    (dict[UUID, Decimal], {A_UUID: Decimal(1)}),
    (Mapping[str, int], {"a": 1}),
    (Sequence[int], [1, 2]),
    (Colour, Colour.RED),
    (Level, Level.HIGH),
    (list[Colour], [Colour.RED, Colour.BLUE]),
    (Point, Point(1, 2.5, ["a"])),
    (Incomparable, Incomparable(1)),
    (Order, AN_ORDER),
    (Box[Point], Box(Point(1))),
    (Options, {"depth": 1, "colour": Colour.BLUE}),
    (Pair, Pair(1, "r")),
    (list[Pair], [Pair(1, "r")]),
    (User, A_USER),
    (list[User], [A_USER]),
    (dict[str, User | None], {"a": A_USER, "b": None}),
    (Literal["a", "b", 3], "b"),
    (int | None, None),
    (int | str, "x"),
    (Point | None, Point(1)),
    (list[Point | None], [Point(1), None]),
    (UserId, 7),
    (Annotated[int, Meta(ge=1)], 7),
    (Any, {"a": [1, 2.5, None, True, "x"]}),
]


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(("hint", "value"), ARRIVING, ids=without_address)
def test_a_value_arrives_as_its_annotated_type(
    hint: Any, value: Any, serializer: Serializer
) -> None:
    for call in ({"args": (value,)}, {"kwargs": {"value": value}}):
        args, kwargs = trip(
            takes(hint), serializer, *call.get("args", ()), **call.get("kwargs", {})
        )
        (came,) = (*args, *kwargs.values())
        assert type(came) is type(value)
        if not isinstance(value, Incomparable):
            assert came == value
            assert repr(came) == repr(value)  # the types inside, too
        else:
            assert came.x == value.x


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_tuple_may_arrive_as_a_list_where_no_type_is_given(
    serializer: Serializer,
) -> None:
    sent = (1, [(2,)])
    assert trip(takes(Any), serializer, sent) == (([1, [[2]]],), {})


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("hint", [float, float | None])
def test_an_integer_may_stand_for_a_float(hint: Any, serializer: Serializer) -> None:
    assert trip(takes(hint), serializer, 3) == ((3.0,), {})


def test_a_pydantic_model_with_an_alias_arrives() -> None:
    args, _ = trip(takes(Aliased), "json", Aliased(userId=7))
    assert args == (Aliased(userId=7),)


# --- values that would not ---

NEVER: list[tuple[Any, Any]] = [
    (Any, {1, 2}),
    (Any, frozenset({1})),
    (Any, Decimal(1)),
    (Any, A_UUID),
    (Any, Colour.RED),
    (Any, Point(1)),
    (Any, Pair(1, "r")),
    (Any, object()),
    (Any, [object()]),
    (Any, float("nan")),
    (Any, [1, float("nan")]),
    (Any, {"a": {"b": {3}}}),
    (Any, Custom()),
    (Any, 1 + 2j),
    (Any, "\ud800"),
    (float, float("nan")),
    (float, "1.5"),
    (str, 5),
    (str, b"bytes"),
    (str, None),
    (bytes, "text"),
    (int, "5"),
    (int, True),
    (int, 1.5),
    (bool, 1),
    (datetime, "2030-01-02T03:04:05Z"),
    (Decimal, "1.10"),
    (UUID, str(A_UUID)),
    (Colour, "red"),
    (Colour, Level.LOW),
    (Literal["a"], "b"),
    (list[int], ["x"]),
    (list[int], {1, 2}),
    (set[int], [1, 2]),
    (dict[str, int], {"a": "x"}),
    (Point, {"x": 1}),
    (Point, Point("x")),  # type: ignore[arg-type]
    (Options, {"depth": "deep"}),
    (Order, Order(A_UUID, [], "10")),  # type: ignore[arg-type]
    (User, {"name": "Ann", "born": "1990-01-02"}),
    (Annotated[int, Meta(ge=1)], 0),
    (int | None, "x"),
]


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(("hint", "value"), NEVER, ids=without_address)
def test_a_value_that_would_arrive_changed_is_refused_by_name(
    hint: Any, value: Any, serializer: Serializer
) -> None:
    with pytest.raises(EncodeError) as caught:
        trip(takes(hint), serializer, value)
    assert "the argument 'value' of job" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "serializer"),
    [(b"x", "json"), ({1: "a"}, "json"), (MOMENT, "json"), (2**70, "msgpack")],
)
def test_what_one_serializer_can_carry_natively_the_other_refuses(
    value: Any, serializer: Serializer
) -> None:
    (other,) = set(SERIALIZERS) - {serializer}
    assert trip(takes(Any), other, value) == ((value,), {})
    with pytest.raises(EncodeError, match="'value'"):
        trip(takes(Any), serializer, value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodeError, match="'value'"):
        trip(takes(Any), "json", loop)


@pytest.mark.parametrize(
    ("args", "kwargs", "name"),
    [
        ((1, "b"), {"c": {1}}, "'c'"),
        (("x",), {}, "'a'"),
        ((1, 2), {}, "'b'"),
        ((), {"b": object(), "a": 1}, "'b'"),
    ],
)
def test_the_argument_at_fault_is_named(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> None:
    with pytest.raises(EncodeError, match=f"the argument {name} of job"):
        trip(plain, "json", *args, **kwargs)


def test_an_argument_inside_a_rest_is_named_too() -> None:
    with pytest.raises(EncodeError, match="the argument 'others' of job"):
        trip(rest, "json", 1, 2, "x")
    with pytest.raises(EncodeError, match="the argument 'x' of job"):
        trip(rest, "json", 1, x=5)


def test_the_place_inside_an_argument_is_named() -> None:
    with pytest.raises(EncodeError, match=r"at `value\[1\]\.x`"):
        trip(takes(list[Point]), "json", [Point(1), Point("x")])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "difference"),
    [({"secret"}, "the set would be a list"), ([{"secret"}], "the list would not be")],
)
def test_no_word_of_a_value_that_would_change_is_shown(
    value: Any, difference: str
) -> None:
    with pytest.raises(EncodeError, match=difference) as caught:
        trip(takes(Any), "json", value)
    assert "secret" not in str(caught.value)


def test_without_validation_only_what_cannot_be_written_is_refused() -> None:
    signature = Signature(takes(int), "job")
    args, _ = signature.encode("json", ("five",), {}, validate=False)
    assert bytes(args) == b'["five"]'
    with pytest.raises(EncodeError, match="'value'"):
        signature.encode("json", (object(),), {}, validate=False)


# --- what a worker reads ---


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        (b"[]", b"", "the arguments of job do not fit"),
        (b"", b"", "the arguments of job do not fit"),
        (b'[1,"b",3]', b"", "the arguments of job do not fit"),
        (b'["x"]', b"", "the argument 'a' of job does not fit: Expected `int`"),
        (b"[1,2]", b"", "the argument 'b' of job does not fit"),
        (b"[1]", b'{"d":1}', "there is no parameter 'd'"),
        (b"[1]", b'{"c":"x"}', "the argument 'c' of job does not fit"),
        (b"[1]", b'{"a":1}', "multiple values for argument 'a'"),
        (b'[1,"b",3]', b'{"c":1}', "at most 2 positional arguments"),
        (b"{}", b"", "do not fit"),
        (b"7", b"", "do not fit"),
        (b"null", b"", "do not fit"),
        (b"[1]", b"[2]", "do not fit"),
    ],
)
def test_arguments_from_outside_that_do_not_fit_are_told_apart(
    args: bytes, kwargs: bytes, problem: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        Signature(plain, "job").decode("json", Raw(args), Raw(kwargs))
    assert problem in str(caught.value)


def test_a_foreign_producer_may_name_every_argument() -> None:
    came = Signature(plain, "job").decode("json", Raw(b""), Raw(b'{"c":1,"a":2}'))
    assert came == ((), {"c": 1, "a": 2})


@given(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from(SERIALIZERS))
def test_any_bytes_are_decoded_or_refused(
    args: bytes, kwargs: bytes, serializer: Serializer
) -> None:
    with suppress(DecodeError):
        Signature(rest, "job").decode(serializer, Raw(args), Raw(kwargs))
