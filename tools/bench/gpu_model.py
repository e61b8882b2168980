"""A model compiled for CUDA on the device: its session, memory for its tensors, runs that are timed; ctypes only."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...backends.tvm.load import CompiledModel
from ...errors import PlanishError

__all__ = ["Driver", "GpuModel"]

Array = npt.NDArray[np.generic]
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


class Driver:
    """The calls of the CUDA driver that the benchmark makes; PlanishError where there is no driver or no GPU."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
            self.call("cuInit", 0)
            self.device = ctypes.c_int()
            self.call("cuDeviceGet", ctypes.byref(self.device), 0)
            context = ctypes.c_void_p()
            self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
            self.call("cuCtxPushCurrent_v2", context)
        except (OSError, RuntimeError) as error:
            raise PlanishError(
                f"there is no NVIDIA GPU with a driver here: {error}",
                where="GPU benchmark",
                hint="run it on a machine with a GPU; without one, planish.tools.bench.cuda_compile compiles the pack",
            ) from error

    def call(self, name: str, *arguments: object) -> None:
        """A function of the driver; RuntimeError names it and the CUresult that it returned."""
        if code := getattr(self._library, name)(*arguments):
            raise RuntimeError(f"{name} returned CUresult {code}")

    def capability(self) -> int:
        """The device's compute capability: 90 is sm_90."""
        found = []
        for attribute in _CAPABILITY:
            number = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(number), attribute, self.device)
            found.append(number.value)
        return found[0] * 10 + found[1]

    def name(self) -> str:
        """The device's name."""
        text = ctypes.create_string_buffer(128)
        self.call("cuDeviceGetName", text, len(text), self.device)
        return text.value.decode()

    def upload(self, array: Array) -> ctypes.c_void_p:
        """Device memory with the array's bytes; it stays until the process ends."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(array.nbytes, 1)))
        data = np.ascontiguousarray(array)
        self.call(
            "cuMemcpyHtoDAsync_v2", address, ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(data.nbytes), None
        )
        self.wait()
        return ctypes.c_void_p(address.value)

    def download(self, address: ctypes.c_void_p, array: Array) -> None:
        """Fill the array from device memory."""
        source, size = ctypes.c_uint64(address.value or 0), ctypes.c_size_t(array.nbytes)
        self.call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), source, size, None)
        self.wait()

    def wait(self) -> None:
        """Until the default stream is empty."""
        self.call("cuStreamSynchronize", None)


class GpuModel:
    """`model.so` with its tensors on the device: `run` computes once and waits, `outputs` copies the results back."""

    def __init__(self, driver: Driver, library: Path, feeds: Mapping[str, Array]) -> None:
        self._driver = driver
        interface = CompiledModel(library)
        self._library = ctypes.CDLL(str(library))
        self._library.model_message.restype = ctypes.c_char_p
        self._session = ctypes.c_void_p()
        self._call("model_open", ctypes.byref(self._session))
        self._results = {name: np.zeros(shape, dtype) for name, (shape, dtype) in interface.outputs.items()}
        inputs = [driver.upload(feeds[name]) for name in interface.inputs]
        self._outputs = [driver.upload(array) for array in self._results.values()]
        self._inputs_table = (ctypes.c_void_p * max(len(inputs), 1))(*inputs)
        self._outputs_table = (ctypes.c_void_p * max(len(self._outputs), 1))(*self._outputs)

    def run(self) -> None:
        """Once, from inputs on the device to outputs on the device."""
        self._call("model_enqueue", self._session, self._inputs_table, self._outputs_table, None)
        self._driver.wait()

    def outputs(self) -> dict[str, Array]:
        """What the last run computed."""
        for address, array in zip(self._outputs, self._results.values(), strict=True):
            self._driver.download(address, array)
        return self._results

    def milliseconds(self, runs: int) -> list[float]:
        """The time of each of so many runs, waiting included."""
        found = []
        for _ in range(runs):
            start = time.perf_counter()
            self.run()
            found.append((time.perf_counter() - start) * 1e3)
        return found

    def close(self) -> None:
        """Free what the session holds on the device."""
        self._library.model_close(self._session)

    def _call(self, name: str, *arguments: object) -> None:
        if code := getattr(self._library, name)(*arguments):
            raise RuntimeError(f"{name}: {self._library.model_message(code).decode()}")
