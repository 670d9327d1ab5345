"""The network as an ONNX graph for serving, written node by node: it is small, and no tracer has to be trusted.

Input `features` float32 [rows, columns], NaN where missing; output `probability` float32 [rows]. The exported graph is
run beside the network, on real rows and on rows with holes and absurd numbers, and must answer the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tailrace_models.onnx_model import INPUT, OUTPUT
from tailrace_training.adapters.torch_network import CUT, Matrix, Network

OPSET = 17
IR_VERSION = 8
TOLERANCE = 1e-5


class ExportDiffers(Exception):  # noqa: N818  # named for what is true
    """The graph does not answer as the network does."""


def to_onnx(network: Network) -> bytes:
    """The graph's bytes: the same network gives the same bytes."""
    constants: dict[str, npt.NDArray[np.float32]] = {
        "mean": _array(network.mean),
        "deviation": _array(network.deviation),
        "zero": np.zeros((), np.float32),
        "low": np.array(-CUT, np.float32),
        "high": np.array(CUT, np.float32),
    }
    nodes = [
        helper.make_node("IsNaN", [INPUT], ["missing"]),
        helper.make_node("Sub", [INPUT, "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["away"]),
        helper.make_node("Where", ["missing", "zero", "away"], ["imputed"]),
        helper.make_node("Clip", ["imputed", "low", "high"], ["hidden0"]),
    ]
    last = len(network.linear) - 1
    for index, layer in enumerate(network.linear):
        constants[f"weight{index}"] = _array(layer.weight)
        constants[f"bias{index}"] = _array(layer.bias)
        inputs = [f"hidden{index}", f"weight{index}", f"bias{index}"]
        nodes.append(helper.make_node("Gemm", inputs, [f"sum{index}"], transB=1))
        activation = "Sigmoid" if index == last else "Relu"
        nodes.append(helper.make_node(activation, [f"sum{index}"], [f"hidden{index + 1}"]))
    return _model(nodes, constants, f"hidden{last + 1}", columns=len(constants["mean"]))


def verify(data: bytes, network: Network, rows: Matrix) -> float:
    """The largest difference between graph and network on the rows, and on the rows with holes and absurd numbers.

    Raises ExportDiffers when it is not below `TOLERANCE`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    probe = np.concatenate([rows, _with_holes(rows), np.full((1, rows.shape[1]), np.nan, np.float32)])
    (answered,) = session.run([OUTPUT], {INPUT: probe})
    difference = float(np.abs(np.asarray(answered) - network.probabilities(probe)).max())
    if not difference < TOLERANCE:
        raise ExportDiffers(
            f"the exported ONNX graph differs from the network by {difference:g}, expected less than {TOLERANCE:g}; "
            "the version is not offered: keep its run and report it"
        )
    return difference


def _with_holes(rows: Matrix) -> Matrix:
    holes = rows.copy()
    columns = rows.shape[1]
    for index in range(len(holes)):
        holes[index, index % columns] = (np.nan, 1e30, -1e30)[index // columns % 3]
    return holes


def _model(nodes: list[onnx.NodeProto], constants: dict[str, Matrix], result: str, columns: int) -> bytes:
    nodes.append(helper.make_node("Reshape", [result, "flat"], [OUTPUT]))
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    initializers.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    graph = helper.make_graph(
        nodes,
        "tailrace",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows"])],
        initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="tailrace"
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _array(tensor: object) -> Matrix:
    return np.ascontiguousarray(np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32))  # type: ignore[attr-defined]
