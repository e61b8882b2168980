// Matrix products of one warp on tensor cores, 16 x 16 x 16, under the names that TVM prints. Written in PTX, so that
// the source needs no header of a CUDA toolkit.
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short
#ifdef __CUDACC_RTC__
typedef long long int64_t;
typedef unsigned long long uint64_t;
#endif
// TVM prints these for expf and the like; their errors are larger.
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __powf powf

__device__ inline ushort narrow(float value) {
  ushort bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ inline float widen(ushort bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
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
struct fragment;
template <class Use, class Order>
struct fragment<Use, 16, 16, 16, signed char, Order> {
  int x[2];
};
template <>
struct fragment<accumulator, 16, 16, 16, int, void> {
  int x[8];
};

typedef fragment<matrix_a, 16, 16, 16, signed char, row_major> bytes_a;
typedef fragment<matrix_b, 16, 16, 16, signed char, col_major> bytes_b;
typedef fragment<accumulator, 16, 16, 16, int, void> sums;

__device__ __forceinline__ unsigned shared_address(const void *pointer) {
  return (unsigned)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ void fill_fragment(sums &c, float value) {
#pragma unroll
  for (int i = 0; i < 8; ++i) c.x[i] = (int)value;
}

__device__ __forceinline__ void load_matrix_sync(bytes_a &a, const signed char *rows, int stride) {
  asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.shared.s8 {%0, %1}, [%2], %3;"
               : "=r"(a.x[0]), "=r"(a.x[1])
               : "r"(shared_address(rows)), "r"(stride)
               : "memory");
}

__device__ __forceinline__ void load_matrix_sync(bytes_b &b, const signed char *columns, int stride) {
  asm volatile("wmma.load.b.sync.aligned.col.m16n16k16.shared.s8 {%0, %1}, [%2], %3;"
               : "=r"(b.x[0]), "=r"(b.x[1])
               : "r"(shared_address(columns)), "r"(stride)
               : "memory");
}

__device__ __forceinline__ void mma_sync(sums &d, const bytes_a &a, const bytes_b &b, const sums &c) {
  asm volatile("wmma.mma.sync.aligned.row.col.m16n16k16.s32.s8.s8.s32 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9}, "
               "{%10, %11}, {%12, %13, %14, %15, %16, %17, %18, %19};"
               : "=r"(d.x[0]), "=r"(d.x[1]), "=r"(d.x[2]), "=r"(d.x[3]), "=r"(d.x[4]), "=r"(d.x[5]), "=r"(d.x[6]),
                 "=r"(d.x[7])
               : "r"(a.x[0]), "r"(a.x[1]), "r"(b.x[0]), "r"(b.x[1]), "r"(c.x[0]), "r"(c.x[1]), "r"(c.x[2]),
                 "r"(c.x[3]), "r"(c.x[4]), "r"(c.x[5]), "r"(c.x[6]), "r"(c.x[7]));
}

__device__ __forceinline__ void store_matrix_sync(int *rows, const sums &c, int stride, layout_t) {
  asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.shared.s32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8}, %9;"
               :
               : "r"(shared_address(rows)), "r"(c.x[0]), "r"(c.x[1]), "r"(c.x[2]), "r"(c.x[3]), "r"(c.x[4]),
                 "r"(c.x[5]), "r"(c.x[6]), "r"(c.x[7]), "r"(stride)
               : "memory");
}
}  // namespace wmma
}  // namespace nvcuda
