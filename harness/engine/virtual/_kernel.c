/* The engine on a virtual clock for the common case: what `model/scheduler.py` does to requests whose blocks nobody
 * shares, first come, first served, and when. kernel.py says what goes in and what comes out; both give the same bits
 * (tests/unit/harness/engine/virtual/test_kernel.py), so times are worked out with + - * / and comparisons in the
 * scheduler's and the law's own order, and this file is compiled without contraction (-ffp-contract=off).
 *
 *     now = the next of: the step's end, the end of somebody's patience, an arrival
 *     what is due at now, in this order: the step's tokens, then those who give up, then those who come, the sample
 *     no step runs: schedule the next one
 *
 * While all who run decode and nobody can come in, the next step differs from the last by a known number of tokens:
 * `coast` goes from step to step with the same sums until an event is due, somebody ends or blocks run out.
 *
 * The queue is a place in the list of those who came: who runs came before all who wait, since the last to have come
 * in is the first to be preempted. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { NEW, WAITING, RUNNING, ENDED };
enum { COMPLETE, ABANDONED, REJECTED, TOO_LONG, LOST, UNSERVED }; /* outcome.Ending */
enum { TOKENS, SAMPLED, PAIRS, KV, SEQUENCES, DECODES, DECODE_KV, QUANTITIES }; /* step_time.CostCurve */
enum { SERIES = 6, TURNS = 1 << 16 };
enum { DONE, MORE, NO_MEMORY };

typedef struct { double constant, weight[QUANTITIES]; int at[QUANTITIES], weights, pieces; double *x, *y, *slope; } Curve;
typedef struct { double constant; int terms; int *sides; Curve *curves; double *memory; } Law;
typedef struct { double t; int64_t i; } Event;
typedef struct { Event *events; int64_t n, room; } Heap;

typedef struct {
    /* of requests: given */
    int64_t n;
    double *arrival, *patience, *think;
    const int64_t *prompt, *output, *given, *previous, *token_at;
    /* of requests: found */
    double *scheduled, *first, *end, *token;
    int64_t *generated, *cached, *preemptions, *ending;
    /* of requests: while it runs */
    int64_t *computed, *blocks, *place, *came, *child, *sibling;
    uint8_t *state;
    /* the engine */
    int64_t block_size, size, max_seqs, max_tokens, max_queued, max_len;
    Law law;
    const double *factors;
    int64_t n_factors, factor, free, arrived, head, waiting, next;
    int64_t *running, n_running, *part, *count, n_parts, *phase;
    int busy;
    double now, step_end, horizon;
    Heap deadlines, followers;
    /* the server's series */
    double interval;
    int64_t *rows, n_rows, room_rows, prompt_total, generation_total, preempted_total;
    double *ends; /* of the steps of one coast */
    int64_t room_ends;
    int failed; /* memory ran out */
} Sim;

/* ---- the law ---- */

static int curve_of(Curve *c, const double *flat, int64_t left, double **memory) {
    if (left < QUANTITIES + 2) return -1;
    c->constant = flat[0];
    c->weights = 0;
    for (int k = 0; k < QUANTITIES; k++)
        if (flat[1 + k] != 0) {
            c->at[c->weights] = k;
            c->weight[c->weights++] = flat[1 + k];
        }
    int knots = (int)flat[QUANTITIES + 1];
    if (left < QUANTITIES + 2 + 2 * (int64_t)knots || knots == 1) return -1;
    const double *knot = flat + QUANTITIES + 2;
    c->pieces = knots ? knots - 1 : 0;
    c->x = *memory, c->y = c->x + c->pieces, c->slope = c->y + c->pieces;
    *memory = c->slope + c->pieces;
    for (int k = 0; k < c->pieces; k++) {
        c->x[k] = knot[2 * k], c->y[k] = knot[2 * k + 1];
        c->slope[k] = (knot[2 * k + 3] - c->y[k]) / (knot[2 * k + 2] - c->x[k]);
    }
    return QUANTITIES + 2 + 2 * knots;
}

static int law_of(Law *law, const double *flat, int64_t length) {
    if (length < 2) return -1;
    law->constant = flat[0], law->terms = (int)flat[1];
    law->sides = PyMem_Calloc(law->terms + 1, sizeof *law->sides);
    law->curves = PyMem_Calloc(2 * (size_t)law->terms + 1, sizeof *law->curves);
    law->memory = PyMem_Calloc(2 * (size_t)length, sizeof *law->memory);
    if (!law->sides || !law->curves || !law->memory) return -2;
    double *memory = law->memory;
    int64_t at = 2;
    for (int k = 0; k < law->terms; k++) {
        if (at >= length) return -1;
        law->sides[k] = (int)flat[at++];
        if (law->sides[k] != 1 && law->sides[k] != 2) return -1;
        for (int side = 0; side < law->sides[k]; side++) {
            int taken = curve_of(&law->curves[2 * k + side], flat + at, length - at, &memory);
            if (taken < 0) return -1;
            at += taken;
        }
    }
    return at == length ? 0 : -1;
}

static inline double on(const Curve *c, const double *q) {
    double x = c->constant;
    for (int k = 0; k < c->weights; k++) x += c->weight[k] * q[c->at[k]];
    if (!c->pieces) return x;
    int low = 0, high = c->pieces - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (c->x[middle] <= x) low = middle;
        else high = middle - 1;
    }
    return c->y[low] + (x - c->x[low]) * c->slope[low];
}

static inline double seconds(const Law *law, const double *q) {
    double total = law->constant;
    for (int k = 0; k < law->terms; k++) {
        double side = on(&law->curves[2 * k], q);
        if (law->sides[k] == 2) {
            double other = on(&law->curves[2 * k + 1], q);
            if (other > side) side = other;
        }
        total += side;
    }
    return total;
}

/* ---- events: the earliest first, of equal times the first request's ---- */

static inline int before(Event a, Event b) { return a.t < b.t || (a.t == b.t && a.i < b.i); }

static int push(Heap *h, double t, int64_t i) {
    if (h->n == h->room) {
        int64_t room = h->room ? 2 * h->room : 256;
        Event *events = PyMem_RawRealloc(h->events, room * sizeof *events);
        if (!events) return -1;
        h->events = events, h->room = room;
    }
    Event new = {t, i};
    int64_t k = h->n++;
    for (; k && before(new, h->events[(k - 1) / 2]); k = (k - 1) / 2) h->events[k] = h->events[(k - 1) / 2];
    h->events[k] = new;
    return 0;
}

static void pop(Heap *h) {
    Event last = h->events[--h->n];
    int64_t k = 0;
    for (int64_t c; (c = 2 * k + 1) < h->n; k = c) {
        if (c + 1 < h->n && before(h->events[c + 1], h->events[c])) c++;
        if (!before(h->events[c], last)) break;
        h->events[k] = h->events[c];
    }
    h->events[k] = last;
}

static Event next_deadline(Sim *s) {
    while (s->deadlines.n && s->state[s->deadlines.events[0].i] == ENDED) pop(&s->deadlines);
    return s->deadlines.n ? s->deadlines.events[0] : (Event){INFINITY, -1};
}

static Event next_arrival(Sim *s) {
    while (s->next < s->n && s->previous && s->previous[s->next] >= 0) s->next++; /* it follows another */
    Event own = s->next < s->n ? (Event){s->arrival[s->next], s->next} : (Event){INFINITY, s->n};
    return s->followers.n && before(s->followers.events[0], own) ? s->followers.events[0] : own;
}

/* ---- requests ---- */

static inline int64_t blocks_for(const Sim *s, int64_t tokens) { return (tokens + s->block_size - 1) / s->block_size; }

static void end_of(Sim *s, int64_t i, int how, double t) {
    s->state[i] = ENDED, s->ending[i] = how, s->end[i] = t;
    s->free += s->blocks[i];
    s->blocks[i] = 0;
    if (s->child)
        for (int64_t k = s->child[i]; k >= 0; k = s->sibling[k])
            if (push(&s->followers, t + s->think[k], k)) s->failed = 1;
}

static void arrive(Sim *s, Event event) {
    int64_t i = event.i, all = s->prompt[i] + s->output[i];
    s->arrival[i] = event.t;
    if (all > s->max_len || blocks_for(s, all) > s->size) { end_of(s, i, TOO_LONG, event.t); return; }
    if (s->n_running + s->waiting >= s->max_queued) { end_of(s, i, REJECTED, event.t); return; }
    s->state[i] = WAITING, s->waiting++;
    s->place[i] = s->arrived, s->came[s->arrived++] = i;
    double deadline = event.t + s->patience[i];
    if (deadline < INFINITY && push(&s->deadlines, deadline, i)) s->failed = 1;
}

static void give_up(Sim *s, int64_t i, double t) {
    if (s->state[i] == RUNNING) {
        int64_t k = 0;
        while (s->running[k] != i) k++;
        memmove(s->running + k, s->running + k + 1, (--s->n_running - k) * sizeof *s->running);
    } else s->waiting--;
    end_of(s, i, ABANDONED, t);
}

static void preempt(Sim *s) {
    int64_t v = s->running[--s->n_running];
    s->free += s->blocks[v];
    s->blocks[v] = s->computed[v] = 0;
    s->preemptions[v]++, s->preempted_total++;
    s->state[v] = WAITING, s->waiting++;
    s->head = s->place[v];
}

/* ---- the series: what is now, as samples due before `until`, or also at it ---- */

static void sample(Sim *s, double until, int also_at) {
    if (!(s->interval > 0)) return;
    for (double t; (t = s->interval * (double)(s->n_rows + 1)) < until || (also_at && t == until); s->n_rows++) {
        if (s->n_rows == s->room_rows) {
            int64_t room = s->room_rows ? 2 * s->room_rows : 1024;
            int64_t *rows = PyMem_RawRealloc(s->rows, room * SERIES * sizeof *rows);
            if (!rows) { s->failed = 1; return; }
            s->rows = rows, s->room_rows = room;
        }
        int64_t row[SERIES] = {s->n_running, s->waiting, s->size - s->free, s->prompt_total, s->generation_total,
                               s->preempted_total};
        memcpy(s->rows + s->n_rows * SERIES, row, sizeof row);
    }
}

/* ---- steps ---- */

static inline double factor(const Sim *s) { return s->n_factors ? s->factors[s->factor] : 1.0; }

static inline void next_factor(Sim *s) { if (++s->factor >= s->n_factors) s->factor = 0; }

static void schedule(Sim *s) {
    int64_t budget = s->max_tokens;
    int preempted = 0;
    s->n_parts = 0;
    for (int64_t at = 0; at < s->n_running && budget > 0; at++) {
        int64_t i = s->running[at], count = s->prompt[i] + s->generated[i] - s->computed[i];
        if (count > budget) count = budget;
        int64_t missing = blocks_for(s, s->computed[i] + count) - s->blocks[i];
        while (missing > s->free) {
            preempted = 1;
            preempt(s);
            if (s->n_running == at) break; /* it was itself */
        }
        if (s->n_running == at) break;
        s->free -= missing, s->blocks[i] += missing;
        s->part[s->n_parts] = i, s->count[s->n_parts++] = count;
        budget -= count;
    }
    while (!preempted && budget > 0 && s->n_running < s->max_seqs && s->waiting) {
        while (s->state[s->came[s->head]] != WAITING) s->head++;
        int64_t i = s->came[s->head], total = s->prompt[i] + s->generated[i];
        if (blocks_for(s, total) > s->free) break;
        s->head++, s->waiting--;
        int64_t cached = (s->given[i] < total - 1 ? s->given[i] : total - 1) / s->block_size * s->block_size;
        int64_t count = total - cached < budget ? total - cached : budget;
        s->computed[i] = cached;
        s->blocks[i] = blocks_for(s, cached + count);
        s->free -= s->blocks[i];
        s->state[i] = RUNNING;
        if (isnan(s->scheduled[i])) s->scheduled[i] = s->now, s->cached[i] = cached;
        s->running[s->n_running++] = i;
        s->part[s->n_parts] = i, s->count[s->n_parts++] = count;
        budget -= count;
    }
    if (!s->n_parts) return;
    int64_t sum[QUANTITIES] = {0};
    for (int64_t k = 0; k < s->n_parts; k++) {
        int64_t i = s->part[k], count = s->count[k], context = s->computed[i];
        sum[TOKENS] += count;
        sum[SAMPLED] += context + count == s->prompt[i] + s->generated[i];
        sum[PAIRS] += count * context + count * (count + 1) / 2;
        sum[KV] += context + count;
        if (s->generated[i] && count == 1) sum[DECODES]++, sum[DECODE_KV] += context + 1;
    }
    sum[SEQUENCES] = s->n_parts;
    double q[QUANTITIES];
    for (int k = 0; k < QUANTITIES; k++) q[k] = (double)sum[k];
    s->step_end = s->now + seconds(&s->law, q) * factor(s);
    next_factor(s);
    s->busy = 1;
}

static void complete(Sim *s) {
    int ended = 0;
    s->busy = 0;
    for (int64_t k = 0; k < s->n_parts; k++) {
        int64_t i = s->part[k];
        if (s->state[i] != RUNNING) continue;
        s->computed[i] += s->count[k];
        if (s->computed[i] < s->prompt[i] + s->generated[i]) continue;
        if (s->token) s->token[s->token_at[i] + s->generated[i]] = s->now;
        if (!s->generated[i]++) s->first[i] = s->now, s->prompt_total += s->prompt[i];
        s->generation_total++;
        if (s->generated[i] == s->output[i]) end_of(s, i, COMPLETE, s->now), ended = 1;
    }
    if (!ended) return;
    int64_t kept = 0;
    for (int64_t k = 0; k < s->n_running; k++)
        if (s->state[s->running[k]] == RUNNING) s->running[kept++] = s->running[k];
    s->n_running = kept;
}

/* Whether the queue's first can't come in now, nor later while no one leaves. */
static int closed(Sim *s) {
    if (!s->waiting || s->n_running == s->max_seqs || s->n_running == s->max_tokens) return 1;
    while (s->state[s->came[s->head]] != WAITING) s->head++;
    int64_t i = s->came[s->head];
    return blocks_for(s, s->prompt[i] + s->generated[i]) > s->free;
}

static void coast(Sim *s) {
    int64_t n = s->n_running, most = INT64_MAX, steps = 0, kv = n, row = 0;
    if (!n || n > s->max_tokens || !closed(s)) return;
    memset(s->phase, 0, s->block_size * sizeof *s->phase);
    for (int64_t k = 0; k < n; k++) {
        int64_t i = s->running[k], left = s->output[i] - s->generated[i] - 1;
        if (!s->generated[i] || s->computed[i] != s->prompt[i] + s->generated[i] - 1) return;
        if (left < most) most = left;
        kv += s->computed[i];
        s->phase[s->computed[i] % s->block_size]++;
    }
    if (!most) return;
    if (s->token && most > s->room_ends) {
        double *ends = PyMem_RawRealloc(s->ends, most * sizeof *ends);
        if (!ends) { s->failed = 1; return; }
        s->ends = ends, s->room_ends = most;
    }
    double until = next_deadline(s).t, arrival = next_arrival(s).t;
    if (arrival < until) until = arrival;
    double each = (double)n, q[QUANTITIES] = {each, each, (double)kv, (double)kv, each, each, (double)kv};
    while (steps < most && s->phase[row] <= s->free) {
        double end = s->now + seconds(&s->law, q) * factor(s);
        if (!(end < until && end <= s->horizon)) break;
        next_factor(s);
        s->free -= s->phase[row];
        sample(s, end, 0);
        if (s->token) s->ends[steps] = end;
        s->now = end;
        s->generation_total += n;
        sample(s, end, 1);
        q[PAIRS] += each, q[KV] += each, q[DECODE_KV] += each;
        row = row ? row - 1 : s->block_size - 1;
        steps++;
    }
    for (int64_t k = 0; k < n; k++) {
        int64_t i = s->running[k];
        if (s->token) memcpy(s->token + s->token_at[i] + s->generated[i], s->ends, steps * sizeof *s->ends);
        s->computed[i] += steps, s->generated[i] += steps;
        s->blocks[i] = blocks_for(s, s->computed[i]);
    }
}

/* Up to so many turns of the clock. */
static int run(Sim *s, int64_t turns) {
    for (; turns > 0; turns--) {
        if (s->failed) return NO_MEMORY;
        Event deadline = next_deadline(s), arrival = next_arrival(s);
        double now = s->busy ? s->step_end : INFINITY;
        if (deadline.t < now) now = deadline.t;
        if (arrival.t < now) now = arrival.t;
        if (now == INFINITY || !(now <= s->horizon)) {
            sample(s, s->horizon < INFINITY ? s->horizon : s->now, 1);
            return s->failed ? NO_MEMORY : DONE;
        }
        sample(s, now, 0);
        s->now = now;
        if (s->busy && s->step_end == now) complete(s);
        do {
            for (; (deadline = next_deadline(s)).t <= now; pop(&s->deadlines)) give_up(s, deadline.i, now);
            while ((arrival = next_arrival(s)).t <= now) {
                if (arrival.i == s->next) s->next++;
                else pop(&s->followers);
                arrive(s, arrival);
            }
        } while (next_deadline(s).t <= now);
        sample(s, now, 1);
        if (s->busy) continue;
        coast(s);
        schedule(s);
    }
    return MORE;
}

/* ---- from and to Python ---- */

static void *column(PyObject *given, Py_ssize_t width, Py_ssize_t n, int writable, Py_buffer *view, int *ok) {
    if (!*ok || given == Py_None) return NULL;
    if (PyObject_GetBuffer(given, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0) { *ok = 0; return NULL; }
    if (n >= 0 && view->len != n * width) {
        PyErr_Format(PyExc_ValueError, "a column has %zd bytes, not %zd", view->len, n * width);
        *ok = 0;
    }
    return view->buf;
}

enum { GIVEN = 8, FOUND = 8, OTHERS = 2 };

static int allocated(Sim *s) {
    size_t n = (size_t)s->n, seats = (size_t)(s->max_seqs < s->n ? s->max_seqs : s->n) + 1;
    int64_t **arrays[] = {&s->computed, &s->blocks, &s->place, &s->came};
    for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++)
        if (!(*arrays[k] = PyMem_Calloc(n + 1, sizeof **arrays[k]))) return 0;
    if (s->previous) {
        s->child = PyMem_Calloc(n + 1, sizeof *s->child), s->sibling = PyMem_Calloc(n + 1, sizeof *s->sibling);
        if (!s->child || !s->sibling) return 0;
        for (int64_t i = 0; i < s->n; i++) s->child[i] = s->sibling[i] = -1;
        for (int64_t i = s->n - 1; i >= 0; i--)
            if (s->previous[i] >= 0) s->sibling[i] = s->child[s->previous[i]], s->child[s->previous[i]] = i;
    }
    s->state = PyMem_Calloc(n + 1, 1);
    s->running = PyMem_Calloc(seats, sizeof *s->running);
    s->part = PyMem_Calloc(seats, sizeof *s->part);
    s->count = PyMem_Calloc(seats, sizeof *s->count);
    s->phase = PyMem_Calloc((size_t)s->block_size, sizeof *s->phase);
    return s->state && s->running && s->part && s->count && s->phase;
}

static void released(Sim *s) {
    void *memory[] = {s->computed, s->blocks, s->place, s->came, s->child, s->sibling, s->state, s->running, s->part,
                      s->count, s->phase, s->law.sides, s->law.curves, s->law.memory};
    for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) PyMem_Free(memory[k]);
    PyMem_RawFree(s->deadlines.events);
    PyMem_RawFree(s->followers.events);
    PyMem_RawFree(s->rows);
    PyMem_RawFree(s->ends);
}

static PyObject *simulate(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *given[GIVEN], *found[FOUND], *law, *factors;
    Sim s = {0};
    long long n, limits[6];
    if (!PyArg_ParseTuple(
            args, "L(OOOOOOOO)(OOOOOOOO)(LLLLLL)OOdd", &n, &given[0], &given[1], &given[2], &given[3], &given[4],
            &given[5], &given[6], &given[7], &found[0], &found[1], &found[2], &found[3], &found[4], &found[5],
            &found[6], &found[7], &limits[0], &limits[1], &limits[2], &limits[3], &limits[4], &limits[5], &law,
            &factors, &s.horizon, &s.interval))
        return NULL;
    s.n = n;
    s.block_size = limits[0], s.size = s.free = limits[1], s.max_seqs = limits[2];
    s.max_tokens = limits[3], s.max_queued = limits[4], s.max_len = limits[5];
    Py_buffer views[GIVEN + FOUND + OTHERS] = {{0}};
    void *columns[GIVEN + FOUND];
    int ok = 1, result = MORE;
    PyObject *answer = NULL;
    for (int k = 0; k < GIVEN + FOUND; k++) {
        PyObject *array = k < GIVEN ? given[k] : found[k - GIVEN];
        int of_tokens = k == GIVEN - 1 || k == GIVEN + FOUND - 1; /* token_at and token */
        columns[k] = column(array, 8, of_tokens ? -1 : n, k == 0 || k >= GIVEN, &views[k], &ok);
    }
    const double *flat = column(law, 8, -1, 0, &views[GIVEN + FOUND], &ok);
    s.factors = column(factors, 8, -1, 0, &views[GIVEN + FOUND + 1], &ok);
    if (!ok) goto out;
    s.n_factors = s.factors ? views[GIVEN + FOUND + 1].len / 8 : 0;
    s.arrival = columns[0], s.prompt = columns[1], s.output = columns[2], s.given = columns[3];
    s.patience = columns[4], s.previous = columns[5], s.think = columns[6], s.token_at = columns[7];
    s.scheduled = columns[8], s.first = columns[9], s.end = columns[10], s.generated = columns[11];
    s.cached = columns[12], s.preemptions = columns[13], s.ending = columns[14], s.token = columns[15];
    if (s.token && (views[7].len != (n + 1) * 8 || views[15].len != s.token_at[n] * 8)) {
        PyErr_SetString(PyExc_ValueError, "room for tokens doesn't fit the lengths");
        goto out;
    }
    int read = law_of(&s.law, flat, views[GIVEN + FOUND].len / 8);
    if (read == -1) PyErr_SetString(PyExc_ValueError, "not a step law");
    if (read == -2 || (read == 0 && !allocated(&s))) PyErr_NoMemory();
    if (PyErr_Occurred()) goto out;
    while (result == MORE) {
        Py_BEGIN_ALLOW_THREADS;
        result = run(&s, TURNS);
        Py_END_ALLOW_THREADS;
        if (result == MORE && PyErr_CheckSignals() < 0) goto out;
    }
    if (result == NO_MEMORY) PyErr_NoMemory();
    else answer = PyBytes_FromStringAndSize((const char *)s.rows, s.n_rows * SERIES * (Py_ssize_t)sizeof *s.rows);
out:
    for (int k = 0; k < GIVEN + FOUND + OTHERS; k++)
        if (views[k].obj) PyBuffer_Release(&views[k]);
    released(&s);
    return answer;
}

static PyMethodDef methods[] = {
    {"simulate", simulate, METH_VARARGS, "simulate(n, given, found, limits, law, factors, horizon_s, interval_s): the series."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", "The engine on a virtual clock, compiled.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&module); }
