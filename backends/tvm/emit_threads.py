"""The C of a team of threads: `model_team_*` in `model.h` and `model.c`, on POSIX threads and C11 atomics.

Every member runs the whole list of calls: its range of the shared ones, and the rest on the first member; members meet
at a barrier wherever a call reads what another member wrote. Waiting spins first, for a call takes microseconds, and
sleeps when that is not enough, so that an idle team costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile
from string import Template

from .control import Close, Open

__all__ = ["Statement", "link_options", "ordered", "words"]

_HEADER = Template(
    """\
#define ${guard}_THREADS $threads

/* A team: ${guard}_THREADS - 1 threads that wait for work, beside the one that calls. `team` is ${name}_team_bytes()
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

enum { SPINS = 4000 }; /* about 0.1 ms: longer than most calls, shorter than a time slice */

typedef struct {
  atomic_uint round, arrived, sleeping;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  const void *const *inputs; /* 0: the members are to end */
  void *const *outputs;
  uint8_t *arena;
  struct member {
    void *team;
    pthread_t thread;
    int index;
  } members[$threads];
} team_t;

static inline void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

/* Waits until every member is here. What one wrote before, all read behind. */
static void meet(team_t *team) {
  const unsigned round = atomic_load(&team->round);
  if (atomic_fetch_add(&team->arrived, 1) + 1 == $threads) {
    atomic_store(&team->arrived, 0);
    atomic_store(&team->round, round + 1);
    if (atomic_load(&team->sleeping)) {
      pthread_mutex_lock(&team->mutex);
      pthread_cond_broadcast(&team->wake);
      pthread_mutex_unlock(&team->mutex);
    }
    return;
  }
  for (int i = 0; i < SPINS; ++i) {
    if (atomic_load_explicit(&team->round, memory_order_acquire) != round) return;
    pause_cpu();
  }
  pthread_mutex_lock(&team->mutex);
  atomic_fetch_add(&team->sleeping, 1);
  while (atomic_load(&team->round) == round) pthread_cond_wait(&team->wake, &team->mutex);
  atomic_fetch_sub(&team->sleeping, 1);
  pthread_mutex_unlock(&team->mutex);
}

/* The iterations of a shared loop that a member runs, as two arguments. */
#define SHARE(extent) (int32_t)((int64_t)(extent) * t / n), (int32_t)((int64_t)(extent) * (t + 1) / n)
#define MEET \\
  if (team) meet(team)

"""
)

_START = Template(
    """\
static void *serve(void *argument) {
  const struct member *self = argument;
  team_t *team = self->team;
  for (;;) {
    meet(team);
    if (!team->inputs) return 0;
    calls(team->inputs, team->outputs, team->arena, team, self->index);
    meet(team);
  }
}

size_t ${name}_team_bytes(void) { return sizeof(team_t); }

int ${name}_team_run(void *memory, const void *const *inputs, void *const *outputs, void *arena) {
  team_t *team = memory;
  const int why = refused(inputs, outputs, arena);
  if (why) return why;
  team->inputs = inputs;
  team->outputs = outputs;
  team->arena = arena;
  meet(team);
  calls(inputs, outputs, arena, team, 0);
  meet(team);
  return 0;
}

/* Ends the first `count` members. */
static void dismiss(team_t *team, int count) {
  for (int i = count; i < $threads; ++i) atomic_fetch_add(&team->arrived, 1); /* those that never came to be */
  team->inputs = 0;
  meet(team);
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


@dataclass(frozen=True)
class Statement:
    """A call without its semicolon and, where threads share its loop, the loop's iterations; or an edge of a block."""

    text: str
    extent: int | None
    edge: Open | Close | None = None


def words(names: Mapping[str, str], threads: int) -> dict[str, str]:
    """What the templates of the C files have in the places for threads."""
    if threads == 1:
        run = Template("  if (${name}_run((const void *const *)inputs, outputs, arena)) return 1;")
        return {"team": "", "members": "", "member": "", "alone": "", "start": "", "run": run.substitute(names)}
    names = {**names, "threads": str(threads)}
    return {
        "team": _HEADER.substitute(names),
        "members": _MEMBERS.substitute(names),
        "member": ", team_t *team, int t",
        "alone": ", 0, 0",
        "start": "\n" + _START.substitute(names),
        "run": _MAIN.substitute(names),
    }


class _Since(Enum):
    """Who ran since the members last met."""

    NOBODY = 0
    FIRST = 1
    ALL = 2


def ordered(statements: Sequence[Statement], threads: int) -> Iterator[str]:
    """The statements as each member runs them, barriers where one thread reads what another wrote."""
    if threads == 1:
        yield from (statement.text + ("" if statement.edge else ";") for statement in statements)
        return
    yield f"const int n = team ? {threads} : 1;"
    since = _Since.NOBODY
    for i, statement in enumerate(statements):
        if statement.edge is not None:
            lines, since = _edge(statements[i:], since)
            yield from lines
        elif statement.extent is None:
            if since is _Since.ALL:
                yield "MEET;"
            yield f"if (t == 0) {statement.text};"
            since = _Since.FIRST
        else:
            if since is not _Since.NOBODY:
                yield "MEET;"
            yield f"{statement.text[:-1]}, SHARE({statement.extent}));"
            since = _Since.ALL


def _edge(rest: Sequence[Statement], since: _Since) -> tuple[list[str], _Since]:
    """The edge of a block that comes first, and who ran since.

    Members meet before they read a condition, and again before anybody may overwrite it. What members share inside of
    a loop is read by its next iteration.
    """
    edge, text = rest[0].edge, rest[0].text
    assert edge is not None
    if edge.block.condition is not None:
        return ([text, "MEET;"] if isinstance(edge, Close) else ["MEET;", text]), _Since.NOBODY
    if isinstance(edge, Close):
        return [text], since
    body = takewhile(lambda s: not (isinstance(s.edge, Close) and s.edge.block is edge.block), rest)
    if any(s.extent is not None or (s.edge is not None and s.edge.block.condition is not None) for s in body):
        return [text, "MEET;"], _Since.NOBODY
    return (["MEET;", text] if since is _Since.ALL else [text]), _Since.FIRST


def link_options(threads: int) -> list[str]:
    """What the linker needs for a team."""
    return ["-pthread"] if threads > 1 else []
