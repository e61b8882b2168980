/* Runs a compiled model twice on raw inputs; an emulator's plugin counts the second run, between the markers.
   usage: arm64_run INPUT...   prints a hash of the outputs */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "model.h"

static void *block(size_t bytes) {
  return aligned_alloc(MODEL_ALIGNMENT, (bytes / MODEL_ALIGNMENT + 2) * MODEL_ALIGNMENT);
}

int main(int argc, char **argv) {
  int ins, outs, failed;
  const model_tensor *in = model_inputs(&ins), *out = model_outputs(&outs);
  void *inputs[MODEL_INPUTS + 1], *outputs[MODEL_OUTPUTS + 1], *arena = block(model_arena_bytes());
  uint64_t hash = 14695981039346656037u;
  if (argc != 1 + ins) return 2;
  for (int i = 0; i < ins; ++i) {
    FILE *file = fopen(argv[1 + i], "rb");
    inputs[i] = block(in[i].bytes);
    if (!file || fread(inputs[i], 1, in[i].bytes, file) != in[i].bytes) return 3;
    fclose(file);
  }
  for (int i = 0; i < outs; ++i) outputs[i] = block(out[i].bytes);
  failed = model_run((const void *const *)inputs, outputs, arena);
  syscall(SYS_getpriority, 0, 0xBEEF01);
  failed |= model_run((const void *const *)inputs, outputs, arena);
  syscall(SYS_getpriority, 0, 0xBEEF02);
  for (int i = 0; i < outs; ++i)
    for (size_t k = 0; k < out[i].bytes; ++k) hash = (hash ^ ((unsigned char *)outputs[i])[k]) * 1099511628211u;
  printf("%016llx\n", (unsigned long long)hash);
  return failed;
}
