"""The binary tensor extension of the Open Inference Protocol: values as bytes behind the JSON.

A body is `length` bytes of JSON, as the header `Inference-Header-Content-Length` says, and then the bytes of those
inputs that have a `binary_data_size` instead of `data`, one after another in their order. Values are little-endian,
a BOOL is one byte, an element of BYTES is its length in four bytes and then UTF-8. Outputs go back in the same way where
the request asks for it: by `binary_data` of an output, or by `binary_data_output` for all others.
(Open Inference Protocol, binary data extension; Triton's `binary_tensor_data`.)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tailrace_serving.domain.oip import InferRequest, Tensor, rows_of
from tailrace_serving.domain.refusal import Refused, brief

EXTENSION = "binary_tensor_data"

_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
    "BF16": "H",
}
_LENGTH_BYTES = 4
_ENCODE = msgspec.json.Encoder().encode


class Wire(NamedTuple):
    """A body, and how much of it is JSON where not all of it is."""

    body: bytes
    json_bytes: int | None


def attach(request: InferRequest, binary: bytes, max_rows: int) -> None:
    """Give the inputs their values out of the bytes behind the JSON. Raises Refused where the two disagree."""
    count = rows_of(request.inputs, max_rows)
    start = 0
    for tensor in request.inputs:
        size = tensor.parameters.binary_data_size if tensor.parameters else None
        if size is None:
            continue
        if tensor.data is not None:
            raise Refused(
                "malformed", f"input {brief(tensor.name)} has both data and binary_data_size, expected one of them"
            )
        if not 0 <= size <= len(binary) - start:
            raise Refused(
                "malformed",
                f"input {brief(tensor.name)} has binary_data_size {brief(size)}, expected 0 to {len(binary) - start},"
                " the bytes that are left behind the JSON",
            )
        tensor.data = _values(tensor, binary[start : start + size], count)
        start += size
    if start != len(binary):
        raise Refused(
            "malformed",
            f"{len(binary)} bytes are behind the JSON, expected {start}, the sum of the inputs' binary_data_size",
        )


def _values(tensor: Tensor, data: bytes, count: int) -> list[Any]:
    if tensor.datatype == "BYTES":
        return _words(tensor, data, count)
    code = _FORMATS.get(tensor.datatype)
    if code is None:
        raise Refused(
            "malformed",
            f"input {brief(tensor.name)} has datatype {brief(tensor.datatype)}, expected BYTES or one of {', '.join(_FORMATS)}",
        )
    wanted = count * struct.calcsize(f"<{code}")
    if len(data) != wanted:
        raise Refused(
            "malformed",
            f"input {brief(tensor.name)} has binary_data_size {len(data)}, expected {wanted} for {count} of {tensor.datatype}",
        )
    if tensor.datatype == "BF16":  # the upper half of an FP32
        return list(struct.unpack(f"<{count}f", b"".join(b"\0\0" + data[at : at + 2] for at in range(0, wanted, 2))))
    return list(struct.unpack(f"<{count}{code}", data))


def _words(tensor: Tensor, data: bytes, count: int) -> list[Any]:
    words: list[Any] = []
    at = 0
    while at < len(data) and len(words) < count:
        length = int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES + length
        if at > len(data):
            break
        try:
            words.append(data[at - length : at].decode())
        except UnicodeDecodeError:
            raise Refused("malformed", f"input {brief(tensor.name)}: element {len(words)} is not UTF-8") from None
    if at != len(data) or len(words) != count:
        raise Refused(
            "malformed",
            f"input {brief(tensor.name)}: its {len(data)} bytes are not {count} elements of BYTES,"
            " expected each as its length in four bytes, little-endian, and then so many bytes",
        )
    return words


def wired(request: InferRequest, response: dict[str, Any]) -> Wire:
    """The response as it is sent: outputs that the caller wants so go behind the JSON."""
    everything = bool(request.parameters and request.parameters.binary_data_output)
    wants = {each.name: each.parameters.binary_data for each in request.outputs or () if each.parameters}
    tail: list[bytes] = []
    for output in response["outputs"]:
        wanted = wants.get(output["name"])
        if everything if wanted is None else wanted:
            data = _bytes(output["datatype"], output.pop("data"))
            output["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
    head = _ENCODE(response)
    return Wire(b"".join((head, *tail)), len(head)) if tail else Wire(head, None)


def _bytes(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        encoded = [str(value).encode() for value in values]
        return b"".join(len(each).to_bytes(_LENGTH_BYTES, "little") + each for each in encoded)
    return struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values)
