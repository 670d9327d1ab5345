# ruff: noqa: FBT003  # booleans are among the wrong values
"""Requests that nobody means well with, by category: what goes over the wire, whatever answers it.

Every one is bad, so that every one deserves a 4xx with a sentence. `corpus` makes them all, the same ones every time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

INFER = "/v2/models/rain/infer"
PREDICT = "/v1/models/rain/predict"
EXPLAIN = "/v2/models/rain/explain"
EXPLAIN_ROWS = "/v1/models/rain/explain"
LENGTH = "Inference-Header-Content-Length"


class Hostile(NamedTuple):
    """One bad request."""

    category: str
    path: str
    body: bytes
    headers: dict[str, str]


ROW: dict[str, Any] = {"humidity": 40.0, "pressure": 1000.0, "wind": 3.0, "sky": "clear"}
DATATYPES = ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "BF16", "FP32")


def tensor(name: str, /, **changes: Any) -> dict[str, Any]:
    """A good tensor with something changed."""
    datatype = "BYTES" if name == "sky" else "FP64"
    return {"name": name, "datatype": datatype, "shape": [1], "data": [ROW[name]], **changes}


def tensors(changed: str = "", /, **changes: Any) -> list[dict[str, Any]]:
    """The good tensors, one of them changed."""
    return [tensor(name, **(changes if name == changed else {})) for name in ROW]


def asked(category: str, body: Any, path: str = INFER, **headers: str) -> Hostile:
    """A request with JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Hostile(category, path, content, headers)


def some(*values: Any) -> tuple[Any, ...]:
    """Values of all types."""
    return values


def corpus() -> list[Hostile]:
    """All of them, each once."""
    kinds = (shapes, datatypes, values, names, structure, deep, huge, identities, binary, text, explanations)
    every = (each for kind in kinds for each in kind())
    return list({(each.path, each.body, tuple(each.headers.items())): each for each in every}.values())


def shapes() -> Iterator[Hostile]:
    """Shapes that overflow when multiplied, contradict the data, or are none."""
    big = (2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30)
    bad: list[Any] = [
        *([each, each] for each in big),
        *([each] for each in big),
        *([1, each] for each in big),
        *([each, 1] for each in big),
        *([each, 2**64 // each] for each in some(2**16, 2**32, 2**48)),
        [2**32, 2**32, 2**32],
        *([2] * length for length in some(16, 64, 1000)),
        *([0], [], [-1], [-1, 1], [1, -1], [1, 0], [0, 0], [1, 1, 1], [2], [3, 1], [1, 2], [-(2**63)], [-(2**64), -1]),
        *(1, "1", None, {}, [None], ["1"], [1.5], [[1]], [True], [{}], True),
    ]
    yield from (asked("shape", {"inputs": tensors("humidity", shape=each)}) for each in bad)
    yield from (asked("shape", {"inputs": [tensor(name, shape=each) for name in ROW]}) for each in bad)


def datatypes() -> Iterator[Hostile]:
    """Datatypes that do not exist, or that the values are not of."""
    unknown = (
        "",
        "fp64",
        "FP65",
        "FLOAT",
        "float64",
        "OBJECT",
        "STRING",
        "BYTES ",
        "U8",
        "NULL",
        "<f8",
        "|O",
        "\0",
        "é",
    )
    for name in some("humidity", "sky"):
        yield from (
            asked("datatype", {"inputs": tensors(name, datatype=each)}) for each in some(*unknown, "x" * 10_000)
        )
        yield from (asked("datatype", {"inputs": tensors(name, datatype=each)}) for each in some(None, 1, [], {}))
    yield from (asked("datatype", {"inputs": tensors("sky", datatype=each)}) for each in some(*DATATYPES, "FP64"))
    for datatype in some("INT8", "INT64", "UINT8", "UINT64", "BOOL"):
        yield from (
            asked("datatype", {"inputs": tensors("humidity", datatype=datatype, data=[each])})
            for each in some(0.5, "1", [], {}, "NaN")
        )


def values() -> Iterator[Hostile]:
    """Values that are no values: not finite, too large, of the wrong type."""
    for literal in some(
        "NaN", "Infinity", "-Infinity", "1e309", "-1e999", "1" * 400, "nan", "inf", "0x10", "1_000", "+1"
    ):
        body = json.dumps({"inputs": tensors("humidity", data=["@"])}).replace('"@"', literal)
        yield asked("value", body.encode())
        yield asked(
            "value", json.dumps({"features": {**ROW, "humidity": "@"}}).replace('"@"', literal).encode(), PREDICT
        )
    wrong: tuple[Any, ...] = ("40", "", [], [40], {}, {"value": 40}, [[40]], [[[40]]], None, 1e300, -1e300, 101, -0.5)
    yield from (asked("value", {"features": {**ROW, "humidity": each}}, PREDICT) for each in wrong)
    yield from (asked("value", {"inputs": tensors("humidity", data=[each])}) for each in wrong if each != [40])
    words: tuple[Any, ...] = (1, 1.5, True, [], {}, None, "green", "", "clear ", "CLEAR", "clear\0", "c" * 10_000)
    yield from (asked("value", {"features": {**ROW, "sky": each}}, PREDICT) for each in words)
    yield from (asked("value", {"inputs": tensors("sky", data=[each])}) for each in words)


def names() -> Iterator[Hostile]:
    """Inputs, outputs and features that are unknown, missing or given twice."""
    yield asked("name", {"inputs": [*tensors(), tensor("humidity")]})
    yield asked("name", {"inputs": [tensor("humidity")] * 1000})
    for name in ROW:
        yield asked("name", {"inputs": [*tensors(), tensor(name)]})
        if name != "wind":
            yield asked("name", {"inputs": [each for each in tensors() if each["name"] != name]})
            yield asked("name", {"features": {key: value for key, value in ROW.items() if key != name}}, PREDICT)
    for bad in (
        "",
        "Humidity",
        "humidity ",
        "__class__",
        "__proto__",
        "\0",
        "\n",
        "humidity\n",
        "../../etc/passwd",
        "x" * 50_000,
    ):
        yield asked("name", {"inputs": tensors("humidity", name=bad)})
        yield asked("name", {"features": {**ROW, bad: 1}}, PREDICT)
        yield asked("name", {"inputs": tensors(), "outputs": [{"name": bad}]})
    yield asked("name", {"inputs": tensors(), "outputs": [{"name": "prediction"}, {"name": "prediction"}]})
    yield from (asked("name", {"inputs": tensors("humidity", name=bad)}) for bad in some(None, 1, [], {}))
    for model in some("", "snow", "..", "%2e%2e", "rain%00", "rain%0a", "x" * 5_000, "%ff%fe", "rain%2f..%2frain"):
        yield asked("name", {"inputs": tensors()}, f"/v2/models/{model}/infer")
    for version in some("0", "-1", "9", "1.1", "1e9", "x", "%00", "9" * 5_000, "latest", "..%2f1"):
        yield asked("name", {"inputs": tensors()}, f"/v2/models/rain/versions/{version}/infer")


def structure() -> Iterator[Hostile]:
    """JSON that is something else than a request."""
    for body in some(
        None,
        True,
        0,
        1.5,
        "",
        "x",
        [],
        [[]],
        {},
        {"inputs": None},
        {"inputs": {}},
        {"inputs": ""},
        {"inputs": 1},
    ):
        yield asked("structure", body)
    for body in some(None, True, 0, "", [], {}, {"features": None}, {"features": []}, {"features": 1}, {"rows": {}}):
        yield asked("structure", body, PREDICT)
    yield from (asked("structure", {"rows": each}, PREDICT) for each in some([], [None], [1], [[]], [ROW, None], [{}]))
    yield asked("structure", {"features": ROW, "rows": [ROW]}, PREDICT)
    yield asked("structure", {"features": ROW, "unknown": 1}, PREDICT)
    yield from (asked("structure", {"inputs": each}) for each in some([], [None], [1], [""], [[]], [{}], [tensors()]))
    for missing in some("name", "datatype", "shape", "data"):
        yield asked("structure", {"inputs": [{k: v for k, v in each.items() if k != missing} for each in tensors()]})
    for data in some(
        None, 1, "1", {}, {"0": 1}, [], [1, 2], [[1], [2]], [[1, 2]], [1, [2]], [[[1]]], [[]], [None, None]
    ):
        yield asked("structure", {"inputs": tensors("humidity", data=data)})
    for parameters in some(1, "x", [], [{}], True):
        yield asked("structure", {"inputs": tensors(), "parameters": parameters})
    for outputs in some(
        1,
        "x",
        {},
        [1],
        [None],
        [{}],
        [{"name": 1}],
        ["prediction"],
        [{"name": "prediction", "parameters": 1}],
    ):
        yield asked("structure", {"inputs": tensors(), "outputs": outputs})
    yield from (asked("structure", {"inputs": tensors(), "id": each}) for each in some(1, 1.5, [], {}, True))


def deep() -> Iterator[Hostile]:
    """JSON nested so deep that whoever reads it recursively runs out of stack."""
    for levels in some(65, 200, 990, 5_000, 49_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            if levels * len(opening) > 90_000:
                continue
            nest = opening * levels + ("1" if closing == "}" else "") + closing * levels
            good = json.dumps(tensors())
            yield asked("deep", nest.encode())
            yield asked("deep", f'{{"inputs": {nest}}}'.encode()[:99_000])
            yield asked("deep", f'{{"inputs": {good}, "extra": {nest}}}'.encode()[:99_000])
            yield asked("deep", f'{{"features": {{"humidity": {nest}}}}}'.encode()[:99_000], PREDICT)
            yield asked(
                "deep", json.dumps({"inputs": tensors("humidity", data="@")}).replace('"@"', nest).encode()[:99_000]
            )
    yield asked("deep", b"[" * 99_000)
    yield asked("deep", b'{"inputs": ' + b"[" * 90_000)


def huge() -> Iterator[Hostile]:
    """More of everything than a request may have."""
    yield asked("huge", b" " * 100_001)
    yield asked("huge", b'{"inputs": "' + b"x" * 99_000 + b'"}')
    yield asked("huge", b'{"id": ' + b"9" * 90_000 + b', "inputs": []}')
    yield asked("huge", {"rows": [ROW] * 51}, PREDICT)
    yield asked("huge", {"rows": [ROW] * 900}, PREDICT)
    yield asked("huge", {"inputs": [tensor("humidity", shape=[51], data=[1.0] * 51)]})
    yield asked("huge", {"inputs": [tensor("humidity", shape=[20_000], data=[1] * 20_000)]})
    yield asked("huge", {"features": {f"x{number}": 1 for number in range(5_000)}}, PREDICT)
    yield asked("huge", {"features": {"x" * 90_000: 1}}, PREDICT)
    yield asked("huge", {"x" * 90_000: 1}, PREDICT)
    yield asked("huge", {"inputs": tensors(), "parameters": {"time": "9" * 90_000}})


def identities() -> Iterator[Hostile]:
    """Ids, entities and times that are none."""
    bad: tuple[Any, ...] = ("", "x" * 129, "x" * 50_000, 1, 1.5, True, [], ["a"], {}, [[]])
    for value in bad:
        yield asked("identity", {"inputs": tensors(), "parameters": {"prediction_id": value}})
        yield asked("identity", {"inputs": tensors(), "parameters": {"entity": value}})
        yield asked("identity", {"features": ROW, "entity": value}, PREDICT)
    for many in some("", "x", "[", "[1]", '["a", "b"]', "[[]]", "{}", [], [1], ["a", "b"], [""], 1, {}, ["x" * 129]):
        yield asked("identity", {"inputs": tensors(), "parameters": {"prediction_ids": many}})
    yield asked("identity", {"inputs": tensors(), "parameters": {"prediction_id": "a", "prediction_ids": ["a"]}})
    for time in some(
        "",
        "now",
        "2026",
        "2026-13-01T00:00:00Z",
        "2026-01-31T12:00:00",
        "0000-01-01T00:00:00Z",
        0,
        [],
        {},
        True,
    ):
        yield asked("identity", {"inputs": tensors(), "parameters": {"time": time}})
    for time in some("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-31T25:00:00Z", "9" * 5_000):
        yield asked("identity", {"features": ROW, "time": time}, PREDICT)


def binary() -> Iterator[Hostile]:
    """Binary tensors whose sizes, lengths and bytes disagree."""
    good = {**tensor("humidity"), "parameters": {"binary_data_size": 8}}
    del good["data"]
    others = [each for each in tensors() if each["name"] != "humidity"]
    eight = struct.pack("<d", 40.0)

    def sent(first: dict[str, Any], tail: bytes, length: str | None = None) -> Hostile:
        head = json.dumps({"inputs": [first, *others]}).encode()
        return Hostile("binary", INFER, head + tail, {LENGTH: length if length is not None else str(len(head))})

    for size in some(0, 1, 7, 9, 16, 2**31, 2**63, 2**64, 10**30, -1, -8, -(2**63)):
        yield sent({**good, "parameters": {"binary_data_size": size}}, eight)
    for wrong in some("8", 8.5, None, True, [], {}):
        yield sent({**good, "parameters": {"binary_data_size": wrong}}, eight)
    yield from (sent(good, tail) for tail in some(b"", eight[:7], eight + b"\0", eight * 2, b"\0" * 50_000))
    yield from (
        sent({**good, "shape": shape}, eight) for shape in some([2], [0], [2**62], [2**63], [2**32, 2**32], [-1], [])
    )
    for datatype in some("FP32", "FP16", "INT8", "BOOL", "UINT64 ", "BYTES", "", "OBJECT", "FP128"):
        yield sent({**good, "datatype": datatype}, eight)
    for number in some(float("nan"), float("inf"), float("-inf"), 1e308, -1.0):
        yield sent(good, struct.pack("<d", number))
    yield sent({**good, "data": [40.0]}, eight)
    yield sent(tensor("humidity"), eight)
    for length in some("", "0", "-1", "x", "1", "99999", "1" * 30, "1.5", "0x10", " ", "+5"):
        yield sent(good, eight, length)
    word = {"name": "sky", "datatype": "BYTES", "shape": [1]}
    numbers = [each for each in tensors() if each["name"] != "sky"]
    for lengths in some(0, 1, 4, 6, 100, 2**31, 2**32 - 1):
        data = lengths.to_bytes(4, "little") + b"clear"
        head = json.dumps({"inputs": [*numbers, {**word, "parameters": {"binary_data_size": len(data)}}]}).encode()
        yield Hostile("binary", INFER, head + data, {LENGTH: str(len(head))})
    for data in (
        b"",
        b"\0",
        b"\0\0\0",
        b"\5\0\0\0clea",
        b"\2\0\0\0\xff\xfe",
        b"\5\0\0\0clear\0\0\0\0",
        b"\3\0\0\0\xed\xa0\x80",
    ):
        head = json.dumps({"inputs": [*numbers, {**word, "parameters": {"binary_data_size": len(data)}}]}).encode()
        yield Hostile("binary", INFER, head + data, {LENGTH: str(len(head))})
    yield Hostile("binary", INFER, json.dumps({"inputs": [good, *others]}).encode(), {})
    row = json.dumps({"features": ROW}).encode()
    yield Hostile("binary", PREDICT, row + eight, {LENGTH: str(len(row))})


def text() -> Iterator[Hostile]:
    """Bytes that are no JSON, or in an encoding that is not spoken."""
    good = json.dumps({"inputs": tensors()}).encode()
    for body in (
        b"",
        b" ",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        good[:-1],
        good + b"}",
    ):
        yield asked("text", body)
    for broken in (
        b"{",
        b"[",
        b'"',
        b"{]",
        b"{'a': 1}",
        b'{"inputs": [,]}',
        b'{"inputs" 1}',
        b"// x",
        b"tru",
        b"-",
        b"\x1f\x8b\x08",
    ):
        yield asked("text", broken)
        yield asked("text", broken, PREDICT)
    for word in (
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\x01"',
        b'"\\x41"',
        b'"\\u12"',
    ):
        yield asked("text", b'{"features": {"sky": ' + word + b"}}", PREDICT)
        yield asked("text", b'{"inputs": [], "id": ' + word + b"}")
    yield from (
        Hostile("text", INFER, good, {"Content-Encoding": each}) for each in some("gzip", "br", "deflate", "x" * 500)
    )


def explanations() -> Iterator[Hostile]:
    """Questions for reasons: as bad as the others are, and how to explain in ways that do not exist or cost too much."""
    for bad in some(0, 1, -2, 2_001, 2**63, 2**64, 10**400, 1.5, True, "32", "", None, [], {}, [32], {"count": 32}):
        if bad is not None:
            yield asked("explain", {"inputs": tensors(), "parameters": {"permutations": bad}}, EXPLAIN)
            yield asked("explain", {"features": ROW, "permutations": bad}, EXPLAIN_ROWS)
    for bad in some(0, 1, "true", "no", [], {}, 0.0):
        yield asked("explain", {"inputs": tensors(), "parameters": {"record": bad}}, EXPLAIN)
        yield asked("explain", {"features": ROW, "record": bad}, EXPLAIN_ROWS)
    for count in some(17, 51, 2**31, 2**64):
        many = {"name": "humidity", "datatype": "FP64", "shape": [count], "data": [1.0]}
        yield asked("explain", {"inputs": [many]}, EXPLAIN)
    yield asked("explain", {"rows": [ROW] * 17}, EXPLAIN_ROWS)
    yield asked("explain", {"rows": [ROW] * 17, "record": False}, EXPLAIN_ROWS)
    for name in some("Contributions", "explanation", "", "shap_values", "\0", "x" * 5_000):
        yield asked("explain", {"inputs": tensors(), "outputs": [{"name": name}]}, EXPLAIN)
    yield asked("explain", {"inputs": tensors(), "outputs": [{"name": "contributions"}] * 2}, EXPLAIN)
    yield asked("explain", {"inputs": tensors(), "outputs": [{"name": "contributions"}]})
    yield asked("explain", {"inputs": tensors()}, "/v2/models/rain/versions/9/explain")
    yield asked("explain", {"inputs": tensors()}, "/v2/models/snow/explain")
    yield asked("explain", {"features": ROW, "permutations": 32}, PREDICT)
    yield asked("explain", {"features": ROW, "explain": True}, EXPLAIN_ROWS)
    yield from (
        each._replace(category="explain", path={INFER: EXPLAIN, PREDICT: EXPLAIN_ROWS}[each.path])
        for kind in (shapes, values, binary, structure)
        for each in kind()
        if each.path in {INFER, PREDICT}
    )
