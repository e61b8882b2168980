// float16 as storage: arithmetic is done in float32 and rounded once. Needs narrow(float) and widen(ushort).
struct half {
  ushort bits;
  half() = default;
  __device__ half(float value) : bits(narrow(value)) {}
  __device__ half(const half &other) = default;
  __device__ half(const volatile half &other) : bits(other.bits) {}
  __device__ half &operator=(const half &other) = default;
  __device__ void operator=(const half &other) volatile { bits = other.bits; }
  __device__ operator float() const { return widen(bits); }
};
struct alignas(4) half2 {
  half x, y;
};
struct alignas(8) half4 {
  half x, y, z, w;
};
__device__ inline half2 make_half2(half x, half y) { return {x, y}; }
__device__ inline half4 make_half4(half x, half y, half z, half w) { return {x, y, z, w}; }
__device__ inline half __float2half_rn(float value) { return half(value); }
__device__ inline uint __pack_half2(const half x, const half y) { return (uint)y.bits << 16 | x.bits; }
__device__ inline half hexp(half x) { return expf(x); }
__device__ inline half hlog(half x) { return logf(x); }
__device__ inline half hsqrt(half x) { return sqrtf(x); }
__device__ inline half hrsqrt(half x) { return rsqrtf(x); }
__device__ inline half htanh(half x) { return tanhf(x); }
__device__ inline half hfloor(half x) { return floorf(x); }
__device__ inline half hceil(half x) { return ceilf(x); }
__device__ inline half htrunc(half x) { return truncf(x); }
__device__ inline half hrint(half x) { return rintf(x); }
__device__ inline half herf(half x) { return erff(x); }
__device__ inline half hsin(half x) { return sinf(x); }
__device__ inline half hcos(half x) { return cosf(x); }
__device__ inline half hpow(half x, half y) { return powf(x, y); }
__device__ inline half __habs(half x) { return fabsf(x); }
