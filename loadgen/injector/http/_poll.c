/* Waits as `select.epoll.poll` does, and reads at once where an intake was given to it (`_intake.c`): of a token that is
 * nothing but the next one, Python never hears.
 *
 * First things first: what Python reads (heads and first tokens, connections being made) goes before what an intake reads,
 * and a deadline goes before any read. What is left over then is read at the next call.
 *
 * Between two polls it may pause: under load one poll then finds many sockets ready instead of few. Kernel stamps keep every
 * time exact as long as a stream has one event a read. And no wait is longer than the beat, if there is one: what a poll reports
 * came after the poll before it, so the beat bounds what is not known of several events in one read.
 */
#define _GNU_SOURCE /* syscall */
#include "_intake.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <structmember.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MOST_EVENTS 1024
#define SLICE_NS 2000000 /* Python hears that nothing is to be said at least this often */
#define NEVER INT64_MAX

typedef struct {
    PyObject_HEAD
    int epoll;
    Intake **of; /* by descriptor; NULL: Python reads it */
    Py_ssize_t room;
    Py_ssize_t given; /* how many of them are not NULL */
    /* Receive lags of the reads that were taken, since the last `drain_lags`: how many from one edge up to the next. */
    buffer edges;  /* int64, ns, rising from 0 */
    buffer counts; /* uint32 */
    int64_t woke;    /* when the last wait ended */
    int64_t longest; /* round that was over without Python, since the last `take_longest` */
    int64_t polled;  /* when the last poll began; this and the two above on CLOCK_MONOTONIC */
    int64_t looked;  /* CLOCK_REALTIME before the last poll that had room for more than it reported */
    int64_t since;   /* the same of the polls before the last one: what that one reported came after it */
    long long pause, beat;
    int exact; /* epoll_pwait2 is there */
    int next, ready; /* of `events`: what the last poll reported and no intake has read yet */
    struct epoll_event events[MOST_EVENTS];
} Poll;

static int64_t now_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * GIGA + now.tv_nsec;
}

static struct timespec as_timespec(int64_t ns) {
    return (struct timespec){.tv_sec = ns / GIGA, .tv_nsec = ns % GIGA};
}

/* One wait of at most so long (ns; NEVER: without an end); where the call isn't there, in whole milliseconds. */
static int wait_at_most(Poll *s, int most, int64_t ns) {
#ifdef SYS_epoll_pwait2
    if (s->exact) {
        struct timespec limit = as_timespec(ns);
        long n = syscall(SYS_epoll_pwait2, s->epoll, s->events, most, ns == NEVER ? NULL : &limit, NULL, 0);
        if (n >= 0 || errno != ENOSYS) return (int)n;
        s->exact = 0;
    }
#endif
    int64_t ms = ns / 1000000 + (ns % 1000000 != 0);
    return epoll_wait(s->epoll, s->events, most, ns == NEVER ? -1 : ms > INT32_MAX ? INT32_MAX : (int)ms);
}

static int Poll_init(Poll *s, PyObject *args, PyObject *kwargs) {
    const char *edges;
    Py_ssize_t n;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Poll takes no keywords");
        return -1;
    }
    long long looked;
    if (!PyArg_ParseTuple(args, "iy#L", &s->epoll, &edges, &n, &looked)) return -1;
    if (n < 16) { PyErr_SetString(PyExc_ValueError, "no edges"); return -1; }
    s->looked = s->since = looked;
    s->edges.used = s->counts.used = 0;
    if (put(&s->edges, edges, (size_t)n) || grow(&s->counts, (size_t)n / 2)) return -1;
    s->counts.used = (size_t)n / 2;
    memset(s->counts.at, 0, s->counts.used);
#ifdef SYS_epoll_pwait2
    struct timespec none = {0, 0};
    s->exact = syscall(SYS_epoll_pwait2, s->epoll, s->events, 1, &none, NULL, 0) >= 0 || errno != ENOSYS;
#endif
    return 0;
}

/* Each octave has 16 edges, so the logarithm says where to look; the edges themselves decide. */
static void count_lag(Poll *s, int64_t lag) {
    const int64_t *edges = (const int64_t *)s->edges.at;
    Py_ssize_t n = (Py_ssize_t)(s->edges.used / sizeof *edges), k = 0;
    if (lag > edges[1]) k = 1 + (Py_ssize_t)(16 * log2f((float)lag / (float)edges[1]));
    if (k >= n) k = n - 1;
    while (k > 0 && edges[k] > lag) k--;
    while (k + 1 < n && edges[k + 1] <= lag) k++;
    ((uint32_t *)s->counts.at)[k]++;
}

static PyObject *Poll_give(Poll *s, PyObject *args) {
    int fd;
    Intake *intake;
    if (!PyArg_ParseTuple(args, "iO!", &fd, &Intake_type, &intake)) return NULL;
    if (fd < 0) { PyErr_SetString(PyExc_ValueError, "no descriptor"); return NULL; }
    if (fd >= s->room) {
        Py_ssize_t room = fd * 2 + 64;
        Intake **of = PyMem_Realloc(s->of, (size_t)room * sizeof *of);
        if (!of) return PyErr_NoMemory();
        memset(of + s->room, 0, (size_t)(room - s->room) * sizeof *of);
        s->of = of;
        s->room = room;
    }
    s->given += !s->of[fd];
    Py_INCREF(intake);
    Py_XSETREF(s->of[fd], intake);
    Py_RETURN_NONE;
}

static PyObject *Poll_take_back(Poll *s, PyObject *number) {
    long fd = PyLong_AsLong(number);
    if (fd == -1 && PyErr_Occurred()) return NULL;
    if (fd >= 0 && fd < s->room && s->of[fd]) {
        s->given--;
        Py_CLEAR(s->of[fd]);
    }
    Py_RETURN_NONE;
}

static int tell(PyObject *found, int fd, long what) {
    PyObject *pair = Py_BuildValue("il", fd, what);
    int failed = !pair || PyList_Append(found, pair);
    Py_XDECREF(pair);
    return failed;
}

/* Let `pause` pass since the last poll, but no deadline. 0, or -1 with an exception. */
static int pause_until(Poll *s, int64_t until) {
    int64_t target = s->polled + s->pause;
    if (until < target) target = until;
    struct timespec at = as_timespec(target);
    int error = 0;
    while (now_of(CLOCK_MONOTONIC) < target) {
        Py_BEGIN_ALLOW_THREADS
        error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        Py_END_ALLOW_THREADS
        if (error == EINTR && PyErr_CheckSignals()) return -1;
    }
    return 0;
}

/* Poll, and keep what is ready in `events`: 0, or -1 with an exception. */
static int look(Poll *s, int wait, int most, int64_t until) {
    int n;
    if (wait && s->pause && s->given && pause_until(s, until)) return -1;
    int64_t before;
    do {
        if (PyErr_CheckSignals()) return -1;
        before = now_of(CLOCK_REALTIME);
        s->polled = now_of(CLOCK_MONOTONIC);
        int64_t limit = !wait || until <= s->polled ? 0 : until == NEVER ? NEVER : until - s->polled;
        if (s->beat && s->beat < limit) limit = s->beat;
        if (limit) {
            Py_BEGIN_ALLOW_THREADS
            n = wait_at_most(s, most, limit);
            Py_END_ALLOW_THREADS
        } else {
            n = epoll_wait(s->epoll, s->events, most, 0);
        }
    } while (n < 0 && errno == EINTR);
    if (n < 0) { PyErr_SetFromErrno(PyExc_OSError); return -1; }
    s->woke = now_of(CLOCK_MONOTONIC);
    s->since = s->looked;
    if (n < most) s->looked = before;
    s->next = 0;
    s->ready = n;
    return 0;
}

static Intake *intake_of(Poll *s, int fd) { return fd < s->room ? s->of[fd] : NULL; }

/* Tell Python of what it reads itself, and keep the rest: 0, or -1 with an exception. */
static int tell_python_first(Poll *s, PyObject *found) {
    int kept = 0;
    for (int k = 0; k < s->ready; k++) {
        int fd = s->events[k].data.fd;
        if (intake_of(s, fd)) s->events[kept++] = s->events[k];
        else if (tell(found, fd, (long)s->events[k].events)) return -1;
    }
    s->ready = kept;
    return 0;
}

/* Read what is ready until a deadline has come: 0, or -1 with an exception. */
static int read_ready(Poll *s, int64_t until, PyObject *found) {
    while (s->next < s->ready && now_of(CLOCK_MONOTONIC) < until) {
        int fd = s->events[s->next++].data.fd;
        Intake *intake = intake_of(s, fd);
        if (!intake) continue; /* Python has it again, and will be told by the next poll */
        int came = take(intake, fd, s->since);
        if (came < 0) return -1;
        if (came == MORE || came == WHOLE || came == FULL) count_lag(s, intake->read - intake->stamp);
        if (came > NOTHING && tell(found, fd, -came)) return -1;
    }
    return 0;
}

static PyObject *Poll_poll(Poll *s, PyObject *args) {
    int wait, most;
    long long until;
    if (!PyArg_ParseTuple(args, "piL", &wait, &most, &until)) return NULL;
    if (most > MOST_EVENTS) most = MOST_EVENTS;
    PyObject *found = PyList_New(0);
    if (!found) return NULL;
    int64_t entered = now_of(CLOCK_MONOTONIC);
    if (s->next < s->ready) s->woke = entered;
    for (;;) {
        if (s->next >= s->ready && (look(s, wait, most, until) || tell_python_first(s, found))) break;
        if (PyList_GET_SIZE(found)) return found;
        if (read_ready(s, until, found)) break;
        if (!wait || PyList_GET_SIZE(found) || s->next < s->ready) return found;
        int64_t now = now_of(CLOCK_MONOTONIC);
        if (now - s->woke > s->longest) s->longest = now - s->woke;
        if (now >= until || now - entered >= SLICE_NS) return found;
    }
    Py_DECREF(found);
    return NULL;
}

static PyObject *Poll_drain_lags(Poll *s, PyObject *nothing) {
    (void)nothing;
    PyObject *found = PyBytes_FromStringAndSize(s->counts.at, (Py_ssize_t)s->counts.used);
    if (found) memset(s->counts.at, 0, s->counts.used);
    return found;
}

static PyObject *Poll_take_longest(Poll *s, PyObject *nothing) {
    (void)nothing;
    int64_t longest = s->longest;
    s->longest = 0;
    return PyLong_FromLongLong(longest);
}

static PyObject *get_woke(Poll *s, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(s->woke);
}

static PyObject *get_unseen_since(Poll *s, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(s->since);
}

static void Poll_dealloc(Poll *s) {
    for (Py_ssize_t k = 0; k < s->room; k++) Py_CLEAR(s->of[k]);
    PyMem_Free(s->of);
    PyMem_Free(s->edges.at);
    PyMem_Free(s->counts.at);
    Py_TYPE(s)->tp_free((PyObject *)s);
}

static PyMethodDef Poll_methods[] = {
    {"give", (PyCFunction)Poll_give, METH_VARARGS, "give(fd, intake): what comes there is read by it."},
    {"take_back", (PyCFunction)Poll_take_back, METH_O, "take_back(fd): Python reads it again."},
    {"poll", (PyCFunction)Poll_poll, METH_VARARGS,
     "poll(wait, most, until): pairs (fd, mask), or where an intake's read asks for Python (fd, -what it came to).\n\n"
     "A poll reports at most `most`. If it may wait and there is nothing to tell, it goes on, until CLOCK_MONOTONIC\n"
     "says `until` (ns) or 2 ms have passed."},
    {"drain_lags", (PyCFunction)Poll_drain_lags, METH_NOARGS, "How many of the intakes' reads since last time had a\n"
     "receive lag from one edge up to the next (uint32 each)."},
    {"take_longest", (PyCFunction)Poll_take_longest, METH_NOARGS,
     "Longest round (ns, without its wait) since last time, of those that Python was told nothing of."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Poll_getset[] = {
    {"woke", (getter)get_woke, NULL, "when the last wait ended, CLOCK_MONOTONIC ns", NULL},
    {"unseen_since", (getter)get_unseen_since, NULL,
     "what the last poll reported came after this, CLOCK_REALTIME ns", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Poll_members[] = {
    {"pause_ns", T_LONGLONG, offsetof(Poll, pause), 0, "least time from one poll to the next, while it may\n"
     "wait and an intake is given"},
    {"beat_ns", T_LONGLONG, offsetof(Poll, beat), 0, "longest wait; 0: any"},
    {"exact", T_INT, offsetof(Poll, exact), READONLY, "whether `until` ends a wait to the microsecond"},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject Poll_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "tailgate.loadgen.injector.http._intake.Poll",
    .tp_doc = "Poll(epoll, edges, looked): waits on a descriptor of epoll, and reads where it was given an intake.\n\n"
              "Edges (int64 each) are those of the receive lags' buckets, in ns, rising; `looked` is CLOCK_REALTIME before\n"
              "the last look that others have had (ns).",
    .tp_basicsize = sizeof(Poll),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Poll_init,
    .tp_dealloc = (destructor)Poll_dealloc,
    .tp_methods = Poll_methods,
    .tp_members = Poll_members,
    .tp_getset = Poll_getset,
};
