/* A QEMU plugin (TCG plugin API 1) that counts how often each translation block runs between two markers.

   The markers are getpriority(PRIO_PROCESS, 0xBEEF01) and (…, 0xBEEF02), a call that changes nothing. At each second
   marker a section is appended to the file of the option out=FILE: a line `region`, then `count address words…` of each block.
   Prototypes are written out because distributions do not ship qemu-plugin.h. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*called)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, called);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

#define EXPORTED __attribute__((visibility("default")))
enum { BUCKETS = 1 << 16, GETPRIORITY = 141 /* on arm64 */, START = 0xBEEF01, STOP = 0xBEEF02, ADD_U64 = 0 };

typedef struct block {
  uint64_t address, count;
  uint32_t size, *words;
  struct block *next;
} block;

EXPORTED int qemu_plugin_version = 1;
static block *table[BUCKETS];
static char path[4096] = "blocks";

static uint32_t word(const struct qemu_plugin_tb *tb, size_t i) {
  uint32_t value;
  memcpy(&value, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof value);
  return value;
}

static bool same(const block *b, const struct qemu_plugin_tb *tb, size_t size) {
  if (b->address != qemu_plugin_tb_vaddr(tb) || b->size != size) return false;
  for (size_t i = 0; i < size; ++i)
    if (b->words[i] != word(tb, i)) return false;
  return true;
}

/* A block that is translated again keeps its counter. */
static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  size_t size = qemu_plugin_tb_n_insns(tb);
  block **bucket = &table[(qemu_plugin_tb_vaddr(tb) >> 2) % BUCKETS], *b = *bucket;
  while (b && !same(b, tb, size)) b = b->next;
  if (!b) {
    b = calloc(1, sizeof *b);
    b->address = qemu_plugin_tb_vaddr(tb);
    b->size = (uint32_t)size;
    b->words = malloc(sizeof(uint32_t) * size);
    for (size_t i = 0; i < size; ++i) b->words[i] = word(tb, i);
    b->next = *bucket;
    *bucket = b;
  }
  qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &b->count, 1);
}

static void clear(void) {
  for (int i = 0; i < BUCKETS; ++i)
    for (block *b = table[i]; b; b = b->next) b->count = 0;
}

static void dump(void) {
  FILE *file = fopen(path, "a");
  if (!file) return;
  fputs("region\n", file);
  for (int i = 0; i < BUCKETS; ++i)
    for (block *b = table[i]; b; b = b->next)
      if (b->count) {
        fprintf(file, "%llu %llx", (unsigned long long)b->count, (unsigned long long)b->address);
        for (uint32_t k = 0; k < b->size; ++k) fprintf(file, " %08x", b->words[k]);
        fputc('\n', file);
      }
  fclose(file);
}

static void watch(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                  uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)cpu, (void)a1, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != GETPRIORITY) return;
  if ((uint32_t)a2 == START) clear();
  if ((uint32_t)a2 == STOP) dump();
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; ++i)
    if (!strncmp(argv[i], "out=", 4)) snprintf(path, sizeof path, "%s", argv[i] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_vcpu_syscall_cb(id, watch);
  return 0;
}
