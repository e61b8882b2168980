/* Runs kernels on given arguments and measures them; candidates.h, which is generated, holds their tables.

   As a program:  measure DATA count                 every kernel once, between markers that an emulator's plugin sees
                  measure DATA time ROUNDS BLOCK_US   the least time of a call, over blocks of calls, kernels in turn
   As a library:  __tvm_ffi_measure(data, rounds, block_us, digests, seconds) for TVM's RPC server.
   Each kernel's results are hashed after its first call: equal hashes are equal bits. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct {
  int reads, writes;
  const int64_t *bytes; /* of every argument, reads first */
  const int64_t *data;  /* where each read's contents begin in the data */
} subject;

typedef struct {
  void (*call)(void **arguments);
  int subject, workspaces;
  const int64_t *workspace_bytes;
} candidate;

#include "candidates.h"

enum { MOST_ARGUMENTS = 64, MARK_START = 0xBEEF01, MARK_STOP = 0xBEEF02 };

#if defined(__x86_64__)
/* Kernels may use AMX's tile registers, which Linux wants to be asked for; without such kernels a refusal is nothing. */
__attribute__((constructor)) static void ask_for_tiles(void) { syscall(SYS_arch_prctl, 0x1023, 18); }
#endif

static void *aligned(int64_t bytes) { return aligned_alloc(64, (size_t)(bytes + 127) / 64 * 64); }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* FNV-1a. */
static uint64_t hash(uint64_t h, const void *data, int64_t bytes) {
  const unsigned char *p = data;
  for (int64_t i = 0; i < bytes; ++i) h = (h ^ p[i]) * 1099511628211u;
  return h;
}

/* The arguments of every subject, filled from the data; those of a candidate have its workspaces behind them. */
static void prepare(const unsigned char *data, void *shared[][MOST_ARGUMENTS]) {
  for (int s = 0; s < SUBJECTS; ++s)
    for (int i = 0; i < subjects[s].reads + subjects[s].writes; ++i) {
      shared[s][i] = aligned(subjects[s].bytes[i]);
      if (i < subjects[s].reads) memcpy(shared[s][i], data + subjects[s].data[i], (size_t)subjects[s].bytes[i]);
    }
}

static void bind(const candidate *c, void *const *shared, void **arguments) {
  int known = subjects[c->subject].reads + subjects[c->subject].writes;
  memcpy(arguments, shared, sizeof(void *) * (size_t)known);
  for (int i = 0; i < c->workspaces; ++i) arguments[known + i] = aligned(c->workspace_bytes[i]);
}

static uint64_t first_call(const candidate *c, void **arguments, int mark) {
  const subject *s = &subjects[c->subject];
  uint64_t h = 14695981039346656037u;
  for (int i = s->reads; i < s->reads + s->writes; ++i) memset(arguments[i], 0xA5, (size_t)s->bytes[i]);
  if (mark) syscall(SYS_getpriority, 0, MARK_START);
  c->call(arguments);
  if (mark) syscall(SYS_getpriority, 0, MARK_STOP);
  for (int i = s->reads; i < s->reads + s->writes; ++i) h = hash(h, arguments[i], s->bytes[i]);
  return h;
}

static double block(const candidate *c, void **arguments, int64_t calls) {
  double start = now();
  for (int64_t i = 0; i < calls; ++i) c->call(arguments);
  return (now() - start) / (double)calls;
}

static void release(void *shared[][MOST_ARGUMENTS], void *arguments[][MOST_ARGUMENTS]) {
  for (int k = 0; k < CANDIDATES; ++k) {
    int known = subjects[candidates[k].subject].reads + subjects[candidates[k].subject].writes;
    for (int i = 0; i < candidates[k].workspaces; ++i) free(arguments[k][known + i]);
  }
  for (int s = 0; s < SUBJECTS; ++s)
    for (int i = 0; i < subjects[s].reads + subjects[s].writes; ++i) free(shared[s][i]);
}

static void measure(const unsigned char *data, int64_t rounds, double block_us, uint64_t *digests, double *seconds) {
  static void *shared[SUBJECTS][MOST_ARGUMENTS], *arguments[CANDIDATES][MOST_ARGUMENTS];
  static int64_t calls[CANDIDATES];
  prepare(data, shared);
  for (int k = 0; k < CANDIDATES; ++k) {
    const candidate *c = &candidates[k];
    bind(c, shared[c->subject], arguments[k]);
    digests[k] = first_call(c, arguments[k], rounds == 0);
    seconds[k] = 0;
    if (!rounds) continue;
    double once = block(c, arguments[k], 1);
    calls[k] = once * 1e6 >= block_us ? 1 : (int64_t)(block_us / (once * 1e6 + 0.05)) + 1;
    seconds[k] = 1e30;
  }
  for (int64_t r = 0; r < rounds; ++r)
    for (int k = 0; k < CANDIDATES; ++k) {
      double found = block(&candidates[k], arguments[k], calls[k]);
      if (found < seconds[k]) seconds[k] = found;
    }
  release(shared, arguments);
}

#ifdef MEASURE_LIBRARY
/* The two structures of TVM's calling convention that are met here (tvm/ffi/c_api.h, dlpack.h). */
typedef struct {
  int32_t type_index, padding;
  union {
    int64_t v_int64;
    void *v_ptr;
  };
} any;
typedef struct {
  void *data;
} tensor; /* the first field of DLTensor */

__attribute__((visibility("default"))) int __tvm_ffi_measure(void *self, const any *a, int32_t count, any *result) {
  (void)self;
  (void)result;
  if (count != 5) return -1;
  measure(((tensor *)a[0].v_ptr)->data, a[1].v_int64, (double)a[2].v_int64, ((tensor *)a[3].v_ptr)->data,
          ((tensor *)a[4].v_ptr)->data);
  return 0;
}
#else
int main(int argc, char **argv) {
  static uint64_t digests[CANDIDATES];
  static double seconds[CANDIDATES];
  if (argc < 3 || (strcmp(argv[2], "count") != 0 && argc < 5)) return 2;
  FILE *file = fopen(argv[1], "rb");
  unsigned char *data = aligned(DATA_BYTES);
  if (!file || fread(data, 1, DATA_BYTES, file) != DATA_BYTES) return 3;
  fclose(file);
  int64_t rounds = argc < 5 ? 0 : atoll(argv[3]);
  measure(data, rounds, argc < 5 ? 0 : atof(argv[4]), digests, seconds);
  for (int k = 0; k < CANDIDATES; ++k) printf("%016llx %.9e\n", (unsigned long long)digests[k], seconds[k]);
  return 0;
}
#endif
