// float16 and bfloat16 as storage: arithmetic is done in float32 and rounded once. Needs narrow(float), widen(ushort).
struct ieee {
  __device__ static ushort rounded(float value) { return narrow(value); }
  __device__ static float whole(ushort bits) { return widen(bits); }
};
// The upper half of a float32, rounded to even; what is not a number stays that.
struct brain {
  __device__ static ushort rounded(float value) {
    union {
      float number;
      uint bits;
    } x = {value};
    if (value != value) return (x.bits >> 16) | 64;
    return (x.bits + 0x7FFF + (x.bits >> 16 & 1)) >> 16;
  }
  __device__ static float whole(ushort bits) {
    union {
      uint bits;
      float number;
    } x = {(uint)bits << 16};
    return x.number;
  }
};

template <class Format>
struct sixteen {
  ushort bits;
  sixteen() = default;
  __device__ sixteen(float value) : bits(Format::rounded(value)) {}
  __device__ sixteen(const sixteen &other) = default;
  __device__ sixteen(const volatile sixteen &other) : bits(other.bits) {}
  __device__ sixteen &operator=(const sixteen &other) = default;
  __device__ void operator=(const sixteen &other) volatile { bits = other.bits; }
  __device__ operator float() const { return Format::whole(bits); }
};
typedef sixteen<ieee> half;
typedef sixteen<brain> nv_bfloat16;

template <class T>
struct alignas(4) pair {
  T x, y;
};
template <class T>
struct alignas(8) quad {
  T x, y, z, w;
};
typedef pair<half> half2;
typedef quad<half> half4;
typedef pair<nv_bfloat16> nv_bfloat162;
typedef quad<nv_bfloat16> nv_bfloat164;
__device__ inline half2 make_half2(half x, half y) { return {x, y}; }
__device__ inline half4 make_half4(half x, half y, half z, half w) { return {x, y, z, w}; }
__device__ inline nv_bfloat162 make_nv_bfloat162(nv_bfloat16 x, nv_bfloat16 y) { return {x, y}; }
__device__ inline half __float2half_rn(float value) { return half(value); }
__device__ inline nv_bfloat16 __float2bfloat16_rn(float value) { return nv_bfloat16(value); }
template <class F>
__device__ inline uint packed(sixteen<F> x, sixteen<F> y) {
  return (uint)y.bits << 16 | x.bits;
}
__device__ inline uint __pack_half2(half x, half y) { return packed(x, y); }
__device__ inline uint __pack_nv_bfloat162(nv_bfloat16 x, nv_bfloat16 y) { return packed(x, y); }

// Functions of either type, in float32: their results are rounded where they are stored.
#define UNARY(name, function) \
  __device__ inline float name(float x) { return function(x); }
UNARY(hexp, expf)
UNARY(hlog, logf)
UNARY(hsqrt, sqrtf)
UNARY(hrsqrt, rsqrtf)
UNARY(htanh, tanhf)
UNARY(herf, erff)
UNARY(hsin, sinf)
UNARY(hcos, cosf)
UNARY(hfloor, floorf)
UNARY(hceil, ceilf)
UNARY(htrunc, truncf)
UNARY(hrint, rintf)
UNARY(__habs, fabsf)
#undef UNARY
__device__ inline float hpow(float x, float y) { return powf(x, y); }
