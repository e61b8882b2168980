// A CUDA driver that runs the kernels of one model on the CPU, for machines without a GPU. It tests values, never time.
//
// Every thread of a block is a fiber; fibers run one after the other from barrier to barrier. A fragment of a warp's
// matrix product is held whole by every lane, so the lanes need not exchange anything.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace {
struct index3 {
  unsigned x, y, z;
};
index3 threadIdx, blockIdx;

enum state_t { READY, AT_BLOCK, AT_WARP, DONE };
struct fiber {
  ucontext_t context;
  state_t state;
  std::vector<char> stack;
};
const int kWarp = 32, kStack = 128 * 1024;
std::vector<fiber> fibers;
ucontext_t scheduler;
int current;
void (*body)(void **);
void **arguments;
uint64_t exchanged[1024];

void wait_for(state_t barrier) {
  fibers[current].state = barrier;
  swapcontext(&fibers[current].context, &scheduler);
}

void enter() {
  body(arguments);
  fibers[current].state = DONE;
  swapcontext(&fibers[current].context, &scheduler);
}

// Let every fiber of a range go on that waits at a barrier, if each of them does or has ended.
bool release(int first, int last, state_t barrier) {
  bool waits = false;
  for (int i = first; i < last; ++i) {
    if (fibers[i].state != barrier && fibers[i].state != DONE) return false;
    waits |= fibers[i].state == barrier;
  }
  for (int i = first; waits && i < last; ++i)
    if (fibers[i].state == barrier) fibers[i].state = READY;
  return waits;
}

void run_block(const unsigned *threads) {
  int count = threads[0] * threads[1] * threads[2];
  while ((int)fibers.size() < count) fibers.emplace_back();
  for (int i = 0; i < count; ++i) {
    fibers[i].stack.resize(kStack);
    getcontext(&fibers[i].context);
    fibers[i].context.uc_stack.ss_sp = fibers[i].stack.data();
    fibers[i].context.uc_stack.ss_size = kStack;
    fibers[i].context.uc_link = nullptr;
    makecontext(&fibers[i].context, enter, 0);
    fibers[i].state = READY;
  }
  for (;;) {
    int ended = 0;
    bool moved = false;
    for (int i = 0; i < count; ++i) {
      if (fibers[i].state == READY) {
        current = i;
        threadIdx = {i % threads[0], i / threads[0] % threads[1], i / threads[0] / threads[1]};
        swapcontext(&scheduler, &fibers[i].context);
        moved = true;
      }
      ended += fibers[i].state == DONE;
    }
    if (ended == count) return;
    for (int first = 0; first < count; first += kWarp)
      moved |= release(first, first + kWarp < count ? first + kWarp : count, AT_WARP);
    moved |= release(0, count, AT_BLOCK);
    if (!moved) {
      fprintf(stderr, "emulated kernel: threads of a block wait at different barriers\n");
      abort();
    }
  }
}

// What CUDA C++ has and C++ has not, as far as generated kernels use it.
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short
template <class T, int N>
struct alignas(sizeof(T) * N) vector;
template <class T>
struct alignas(sizeof(T) * 2) vector<T, 2> {
  T x, y;
};
template <class T>
struct alignas(sizeof(T) * 4) vector<T, 4> {
  T x, y, z, w;
};
typedef vector<int, 2> int2;
typedef vector<int, 4> int4;
typedef vector<unsigned, 2> uint2;
typedef vector<unsigned, 4> uint4;
typedef vector<float, 2> float2;
typedef vector<float, 4> float4;
typedef vector<signed char, 4> char4;
typedef vector<unsigned char, 4> uchar4;
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline ushort narrow(float value) {
  _Float16 x = (_Float16)value;
  ushort bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float widen(ushort bits) {
  _Float16 x;
  memcpy(&x, &bits, sizeof bits);
  return (float)x;
}
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __powf powf
#include "float16.cuh"
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline int __float2int_rn(float x) { return (int)lrintf(x); }
inline void __syncthreads() { wait_for(AT_BLOCK); }
inline void __syncwarp(unsigned = ~0u) { wait_for(AT_WARP); }
inline unsigned __activemask() { return ~0u; }

inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) c += (signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
  return c;
}

// The value of lane `from` of each group of `width` lanes; a lane that is not there gives its own.
template <class T>
T shuffled(T value, int from, int width) {
  int lane = current % kWarp, group = lane / width * width;
  memcpy(&exchanged[current], &value, sizeof value);
  wait_for(AT_WARP);
  if (from >= group && from < group + width) memcpy(&value, &exchanged[current - lane + from], sizeof value);
  wait_for(AT_WARP);
  return value;
}
template <class T>
T __shfl_sync(unsigned, T value, int lane, int width = kWarp) {
  return shuffled(value, current % kWarp / width * width + lane % width, width);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int width = kWarp) {
  return shuffled(value, current % kWarp + (int)delta, width);
}

namespace nvcuda {
namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major };
template <class Use, int M, int N, int K, class T, class Order = void>
struct fragment {
  T x[M][K];
};
template <class C>
void fill_fragment(C &c, float value) {
  for (auto &row : c.x)
    for (auto &x : row) x = value;
}
template <class F, class T>
void load_matrix_sync(F &f, const T *rows, int stride) {
  for (int i = 0; i < 16; ++i) memcpy(f.x[i], rows + i * stride, sizeof f.x[i]);
}
template <class C, class A, class B>
void mma_sync(C &d, const A &a, const B &b, const C &c) {
  d = c;
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j)
      for (int k = 0; k < 16; ++k) d.x[i][j] += a.x[i][k] * b.x[j][k];
}
template <class C, class T>
void store_matrix_sync(T *rows, const C &c, int stride, layout_t) {
  for (int i = 0; i < 16; ++i) memcpy(rows + i * stride, c.x[i], sizeof c.x[i]);
}
}  // namespace wmma
}  // namespace nvcuda

#define alignas(bytes) __attribute__((aligned(bytes)))  // which may follow `static`
#include KERNELS
#undef alignas

template <class... A, size_t... I>
void invoke(void (*kernel)(A...), void **given, std::index_sequence<I...>) {
  kernel(*static_cast<A *>(given[I])...);
}
template <class... A>
void invoke(void (*kernel)(A...), void **given) {
  invoke(kernel, given, std::index_sequence_for<A...>());
}
#define KERNEL(name) {#name, [](void **given) { invoke(name, given); }},
const std::map<std::string, void (*)(void **)> table = {
#include TABLE
};
std::map<unsigned long long, size_t> blocks;
}  // namespace

// The driver. Memory ends at a page that cannot be touched, so that an access behind it is noticed.
typedef unsigned long long address;
extern "C" {
int cuInit(unsigned) { return 0; }
int cuDeviceGet(int *device, int) { return *device = 0; }
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &scheduler, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxGetCurrent(void **context) { return *context = nullptr, 0; }
int cuCtxPushCurrent_v2(void *) { return 0; }
int cuCtxPopCurrent_v2(void **) { return 0; }
int cuModuleLoadData(void **module, const void *) { return *module = &blocks, 0; }
int cuModuleUnload(void *) { return 0; }
int cuModuleGetFunction(void **function, void *, const char *name) {
  auto found = table.find(name);
  if (found == table.end()) return 500;
  *function = (void *)found->second;
  return 0;
}
int cuMemAlloc_v2(address *memory, size_t bytes) {
  const size_t page = 4096, whole = (bytes + page - 1) / page * page;
  char *start = (char *)mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return 2;
  memset(start, 0xA5, whole);
  mprotect(start + whole, page, PROT_NONE);
  *memory = (address)(start + (whole - bytes) / 64 * 64);
  blocks[*memory] = whole + page;
  return 0;
}
int cuMemFree_v2(address memory) { return munmap((void *)(memory / 4096 * 4096), blocks[memory]); }
int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t n, void *) { return memcpy((void *)to, from, n), 0; }
int cuMemcpyDtoHAsync_v2(void *to, address from, size_t n, void *) { return memcpy(to, (void *)from, n), 0; }
int cuMemcpyDtoDAsync_v2(address to, address from, size_t n, void *) {
  return memmove((void *)to, (void *)from, n), 0;
}
int cuStreamSynchronize(void *) { return 0; }
int cuGetErrorString(int, const char **text) { return *text = "error of the emulated driver", 0; }
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz, unsigned,
                   void *, void **given, void **) {
  const unsigned threads[3] = {tx, ty, tz};
  body = (void (*)(void **))function;
  arguments = given;
  for (unsigned k = 0; k < z; ++k)
    for (unsigned j = 0; j < y; ++j)
      for (unsigned i = 0; i < x; ++i) {
        blockIdx = {i, j, k};
        run_block(threads);
      }
  return 0;
}
}
