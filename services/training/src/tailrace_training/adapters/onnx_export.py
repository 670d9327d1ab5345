"""The network as an ONNX graph for serving, written node by node: it is small, and no tracer has to be trusted.

Input `features` float32 [rows, columns], NaN where missing; output `probability`, or of a regression `prediction` in
the label's unit, float32 [rows]. The exported graph is run beside the network, on real rows and on rows with holes and absurd numbers, and must answer the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tailrace_models.onnx_model import INPUT, PREDICTION, PROBABILITY
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
        if index < last:
            nodes.append(helper.make_node("Relu", [f"sum{index}"], [f"hidden{index + 1}"]))
    if network.regression:
        constants["target_deviation"] = _array(network.target_deviation)
        constants["target_mean"] = _array(network.target_mean)
        nodes.append(helper.make_node("Mul", [f"sum{last}", "target_deviation"], ["spread"]))
        nodes.append(helper.make_node("Add", ["spread", "target_mean"], [f"hidden{last + 1}"]))
    else:
        nodes.append(helper.make_node("Sigmoid", [f"sum{last}"], [f"hidden{last + 1}"]))
    output = PREDICTION if network.regression else PROBABILITY
    return _model(nodes, constants, f"hidden{last + 1}", output)


def verify(data: bytes, network: Network, rows: Matrix) -> float:
    """The largest difference between graph and network on the rows, and on the rows with holes and absurd numbers.

    Of a regression, in deviations of the label: relative to the answer where that is many deviations from 0. Raises ExportDiffers when it is not below `TOLERANCE`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    probe = np.concatenate([rows, _with_holes(rows), np.full((1, rows.shape[1]), np.nan, np.float32)])
    (answered,) = session.run(None, {INPUT: probe})
    expected = network.answers(probe)
    unit = np.maximum(network.target_deviation.item(), np.abs(expected)) if network.regression else 1.0
    difference = float((np.abs(np.asarray(answered) - expected) / unit).max())
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


def _model(nodes: list[onnx.NodeProto], constants: dict[str, Matrix], result: str, output: str) -> bytes:
    nodes.append(helper.make_node("Reshape", [result, "flat"], [output]))
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    initializers.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    graph = helper.make_graph(
        nodes,
        "tailrace",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", len(constants["mean"])])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows"])],
        initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="tailrace"
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _array(tensor: object) -> Matrix:
    return np.ascontiguousarray(np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32))  # type: ignore[attr-defined]
