"""The C of a team of threads: `model_team_*` in `model.h` and `model.c`, on POSIX threads and C11 atomics.

Every member walks the same list of statements. The iterations of a statement are cut into one share a member: its owner
takes from the front of it. A member that is done takes from the back of the shares of others, at once where the owner
has not come, else after a moment: what a member computes lies in its own cache, and the next statement reads it there.
A statement is over when its iterations are, whoever did them, so nobody waits for a member that the system has put
aside before it took any. Waiting spins first, for a statement takes microseconds, and sleeps when that is not enough:
an idle team costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

__all__ = ["link_options", "words"]

_HEADER = Template(
    """\
#define ${guard}_THREADS $threads

/* A team: ${guard}_THREADS - 1 threads that wait for work, beside the one that calls (none where the model is too small
   to gain from them). `team` is ${name}_team_bytes()
   bytes of the caller's, aligned like the arena; a team runs one inference at a time, several teams run side by side.
   start returns 0, or an error number of pthread_create (nothing is left to stop then). */
size_t ${name}_team_bytes(void);
int ${name}_team_start(void *team);
void ${name}_team_stop(void *team);

/* ${name}_run on all threads of the team: the same results. */
int ${name}_team_run(void *team, const void *const *inputs, void *const *outputs, void *arena);

"""
)

_MEMBERS = Template(
    """\
#include <pthread.h>
#include <stdatomic.h>

enum {
  SPINS = 4000,  /* about 0.1 ms: longer than most statements, shorter than a time slice */
  PATIENCE = 64, /* about 2 µs: more than what members that share evenly are apart */
  GLANCE = 16,   /* about 0.5 µs: when one that waits looks whether others have come; looking costs them a line */
  CUTS = 8       /* the least that is taken at once: this part of a share */
};

typedef struct {
  struct share {
    _Alignas(64) atomic_ullong left; /* the statement, the first iteration that is left, the one behind the last */
  } shares[$threads];
  _Alignas(64) atomic_uint open; /* the statement that may run: counted on from run to run, one more in between */
  atomic_int sleeping;           /* members that sleep */
  atomic_uint first;             /* the first statement of this run */
  const void *const *_Atomic inputs; /* 0: the members are to end */
  void *const *_Atomic outputs;
  uint8_t *_Atomic arena;
  _Alignas(64) atomic_int done;  /* iterations of it that are done: not where those who wait look all the time */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  struct member {
    void *team;
    pthread_t thread;
    int index;
  } members[$threads];
} team_t;

typedef struct {
  team_t *team; /* 0: the caller is alone */
  int member;
  unsigned statement;
  unsigned skipped; /* statements that a caller alone is to pass over */
} walk_t;

typedef struct {
  int32_t start, stop, done; /* done: since others were told last */
  int absent;                /* somebody's share was untouched when this member had done its own */
  unsigned skip; /* statements behind this one that the team is to pass over */
} range_t;

static inline void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

static void open_statement(team_t *team, unsigned statement) {
  atomic_store(&team->open, statement);
  if (atomic_load(&team->sleeping)) {
    pthread_mutex_lock(&team->mutex);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->mutex);
  }
}

static int is_open(team_t *team, unsigned statement) {
  return (int32_t)(atomic_load(&team->open) - statement) >= 0;
}

/* Waits for a statement. What was written before it was opened, all read behind. */
static void await(team_t *team, unsigned statement) {
  for (int i = 0; i < SPINS; ++i) {
    if (is_open(team, statement)) return;
    pause_cpu();
  }
  pthread_mutex_lock(&team->mutex);
  atomic_fetch_add(&team->sleeping, 1);
  while (!is_open(team, statement)) pthread_cond_wait(&team->wake, &team->mutex);
  atomic_fetch_sub(&team->sleeping, 1);
  pthread_mutex_unlock(&team->mutex);
}

/* Takes pieces of a member's share that nobody has taken: its owner seven eighths of them from the front, another
   member half of them from the back, and if it `waits` only where the owner has not come yet. Their number, 0 when
   there are none. A share of an older statement is one that nobody has touched yet. */
static unsigned claim(const walk_t *walk, unsigned owner, int waits, unsigned pieces, unsigned *first) {
  const int own = owner == (unsigned)walk->member;
  const unsigned least = pieces / ($threads * CUTS);
  atomic_ullong *share = &walk->team->shares[owner].left;
  unsigned long long old = atomic_load_explicit(share, memory_order_relaxed), rest;
  unsigned size;
  if (atomic_load(&walk->team->open) != walk->statement) return 0; /* the team is past it */
  do {
    const int32_t age = (int32_t)(walk->statement - (unsigned)(old >> 32));
    const unsigned low = age ? pieces * owner / $threads : old >> 16 & 0xffff;
    const unsigned high = age ? pieces * (owner + 1) / $threads : old & 0xffff;
    if (age < 0 || low == high || (waits && !age)) return 0; /* of a later statement; empty; at work */
    size = own ? (7 * (high - low) + 7) / 8 : (high - low + 1) / 2;
    if (size < least) size = high - low < least ? high - low : least;
    *first = own ? low : high - size;
    rest = (unsigned long long)walk->statement << 32 | (own ? low + size : low) << 16 | (own ? high : high - size);
  } while (!atomic_compare_exchange_weak_explicit(share, &old, rest, memory_order_relaxed, memory_order_relaxed));
  return size;
}

/* The same from the shares of the others in turn. */
static unsigned steal(const walk_t *walk, int waits, unsigned pieces, unsigned *first) {
  unsigned size = 0;
  for (unsigned k = 1; k < $threads && !size; ++k) {
    size = claim(walk, (walk->member + k) % $threads, waits, pieces, first);
  }
  return size;
}

/* What a member that has done its share does for others. Where they are at work it gives them a while: iterations that
   change hands take their data along. */
static unsigned help(const walk_t *walk, range_t *range, unsigned pieces, unsigned *first) {
  for (int i = 0; i < PATIENCE && !range->absent; ++i) {
    if (is_open(walk->team, walk->statement + 1)) return 0;
    if (i == GLANCE) {
      const unsigned size = steal(walk, 1, pieces, first);
      if ((range->absent = size != 0)) return size;
    }
    pause_cpu();
  }
  return steal(walk, 0, pieces, first);
}

/* All iterations at once, and then none. */
static int alone(walk_t *walk, int32_t extent, range_t *range) {
  if (!range->stop && !walk->skipped) return range->stop = extent;
  walk->skipped = range->stop ? range->skip : walk->skipped - 1;
  return 0;
}

/* The next iterations of a statement for this member; 0 when it is over. */
static int take(walk_t *walk, int32_t extent, range_t *range) {
  team_t *team = walk->team;
  const int32_t unit = extent / 0xffff + 1;
  unsigned first;
  if (!team) return alone(walk, extent, range);
  const unsigned all = (extent + unit - 1) / unit;
  unsigned pieces = claim(walk, walk->member, 0, all, &first);
  if (!pieces) {
    if (range->done && atomic_fetch_add(&team->done, range->done) + range->done == extent) {
      atomic_store(&team->done, 0);
      open_statement(team, ++walk->statement + range->skip);
      return 0;
    }
    range->done = 0;
    pieces = help(walk, range, all, &first);
  }
  if (pieces) {
    range->start = (int32_t)first * unit;
    range->stop = range->start + (int32_t)pieces * unit < extent ? range->start + (int32_t)pieces * unit : extent;
    range->done += range->stop - range->start;
    return 1;
  }
  await(team, ++walk->statement);
  return 0;
}

"""
)

_START = Template(
    """\
static void *serve(void *argument) {
  const struct member *self = argument;
  team_t *team = self->team;
  for (unsigned behind = 0;;) {
    await(team, behind + 1);
    const unsigned first = atomic_load(&team->first);
    const void *const *inputs = atomic_load(&team->inputs);
    if (!inputs) return 0;
    behind = calls(inputs, atomic_load(&team->outputs), atomic_load(&team->arena), team, self->index, first);
  }
}

size_t ${name}_team_bytes(void) { return sizeof(team_t); }

int ${name}_team_run(void *memory, const void *const *inputs, void *const *outputs, void *arena) {
  team_t *team = memory;
  if ($threads == 1) return ${name}_run(inputs, outputs, arena);
  const int why = refused(inputs, outputs, arena);
  if (why) return why;
  const unsigned first = atomic_load(&team->open) + 1;
  atomic_store(&team->first, first);
  atomic_store(&team->inputs, inputs);
  atomic_store(&team->outputs, outputs);
  atomic_store(&team->arena, arena);
  open_statement(team, first);
  calls(inputs, outputs, arena, team, 0, first);
  return 0;
}

/* Ends the first `count` members. */
static void dismiss(team_t *team, int count) {
  atomic_store(&team->inputs, 0);
  open_statement(team, atomic_load(&team->open) + 1);
  for (int i = 1; i < count; ++i) pthread_join(team->members[i].thread, 0);
  pthread_cond_destroy(&team->wake);
  pthread_mutex_destroy(&team->mutex);
}

void ${name}_team_stop(void *team) { dismiss(team, $threads); }

int ${name}_team_start(void *memory) {
  team_t *team = memory;
  memset(team, 0, sizeof *team);
  pthread_mutex_init(&team->mutex, 0);
  pthread_cond_init(&team->wake, 0);
  for (int i = 1; i < $threads; ++i) {
    struct member *member = &team->members[i];
    member->team = team;
    member->index = i;
    const int error = pthread_create(&member->thread, 0, serve, member);
    if (error) {
      dismiss(team, i);
      return error;
    }
  }
  return 0;
}
"""
)


_MAIN = Template(
    """\
  static _Alignas(64) unsigned char team[sizeof(void *) * 64 * ${guard}_THREADS];
  if (${name}_team_bytes() > sizeof team || ${name}_team_start(team)) return 1;
  if (${name}_team_run(team, (const void *const *)inputs, outputs, arena)) return 1;
  ${name}_team_stop(team);"""
)


def words(names: Mapping[str, str], threads: int, *, team: bool) -> dict[str, str]:
    """What the templates of the C files have in the places for threads."""
    if not team:
        run = Template("  if (${name}_run((const void *const *)inputs, outputs, arena)) return 1;")
        nothing = dict.fromkeys(("team", "members", "member", "alone", "start", "behind"), "")
        return {**nothing, "walked": "void", "run": run.substitute(names)}
    names = {**names, "threads": str(threads)}
    return {
        "team": _HEADER.substitute(names),
        "members": _MEMBERS.substitute(names),
        "member": ", team_t *team, int t, unsigned first",
        "alone": ", 0, 0, 0",
        "walked": "unsigned",
        "behind": "\n  return walk.statement;",
        "start": "\n" + _START.substitute(names),
        "run": _MAIN.substitute(names),
    }


def link_options(threads: int) -> list[str]:
    """What the linker needs for a team."""
    return ["-pthread"] if threads > 1 else []
