// Run a compiled model by tvm-ffi alone: c++ -std=c++17 run.cc $(tvm-ffi-config --cxxflags --ldflags --libs) -o run
//                                        ./run out/model.so   (after `optimize examples/digits.onnx -o out`)
#include <dlpack/dlpack.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace ffi = tvm::ffi;

static DLTensor dense(void *data, std::vector<int64_t> &shape, DLDataType type) {
  return DLTensor{data, {kDLCPU, 0}, static_cast<int32_t>(shape.size()), type, shape.data(), nullptr, 0};
}

int main(int, char **argv) {
  ffi::Module module = ffi::Module::LoadFromFile(argv[1]);
  std::vector<int64_t> image_shape{1, 1, 8, 8}, logits_shape{1, 10};
  std::vector<int64_t> arena_shape{std::max<int64_t>(module->GetFunction("arena_bytes").value()().cast<int64_t>(), 64)};
  arena_shape[0] = (arena_shape[0] + 63) / 64 * 64;
  auto *image = static_cast<float *>(std::aligned_alloc(64, 64 * sizeof(float)));
  auto *logits = static_cast<float *>(std::aligned_alloc(64, 64));
  void *arena = std::aligned_alloc(64, arena_shape[0]);
  for (int i = 0; i < 64; ++i) image[i] = 16.0f * i / 63.0f;
  DLTensor x = dense(image, image_shape, {kDLFloat, 32, 1}), y = dense(logits, logits_shape, {kDLFloat, 32, 1});
  DLTensor a = dense(arena, arena_shape, {kDLUInt, 8, 1});
  module->GetFunction("run").value()(&x, &y, &a);
  std::printf("digit %td\n", std::max_element(logits, logits + 10) - logits);
}
