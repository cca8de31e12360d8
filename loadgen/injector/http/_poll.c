/* Waits as `select.epoll.poll` does, and reads at once where an intake was given to it (`_intake.c`): of a token that is
 * nothing but the next one, Python never hears.
 */
#include "_intake.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#define MOST_EVENTS 64
#define SLICE_NS 2000000 /* Python hears that nothing is to be said at least this often */

typedef struct {
    PyObject_HEAD
    int epoll;
    Intake **of; /* by descriptor; NULL: Python reads it */
    Py_ssize_t room;
    /* Receive lags of the reads that were taken, since the last `drain_lags`: how many from one edge up to the next. */
    buffer edges;  /* int64, ns, rising from 0 */
    buffer counts; /* uint32 */
    int64_t woke;    /* when the last wait ended */
    int64_t longest; /* round that was over without Python, since the last `take_longest` */
} Poll;

static int64_t monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * GIGA + now.tv_nsec;
}

static int Poll_init(Poll *s, PyObject *args, PyObject *kwargs) {
    const char *edges;
    Py_ssize_t n;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Poll takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "iy#", &s->epoll, &edges, &n)) return -1;
    if (n < 16) { PyErr_SetString(PyExc_ValueError, "no edges"); return -1; }
    s->edges.used = s->counts.used = 0;
    if (put(&s->edges, edges, (size_t)n) || grow(&s->counts, (size_t)n / 2)) return -1;
    s->counts.used = (size_t)n / 2;
    memset(s->counts.at, 0, s->counts.used);
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
    Py_INCREF(intake);
    Py_XSETREF(s->of[fd], intake);
    Py_RETURN_NONE;
}

static PyObject *Poll_take_back(Poll *s, PyObject *number) {
    long fd = PyLong_AsLong(number);
    if (fd == -1 && PyErr_Occurred()) return NULL;
    if (fd >= 0 && fd < s->room) Py_CLEAR(s->of[fd]);
    Py_RETURN_NONE;
}

static int tell(PyObject *found, int fd, long what) {
    PyObject *pair = Py_BuildValue("il", fd, what);
    int failed = !pair || PyList_Append(found, pair);
    Py_XDECREF(pair);
    return failed;
}

/* Wait, then read where we may: how many were ready, or -1 with an exception. `found`: what Python must see to. */
static int poll_once(Poll *s, int wait, int most, PyObject *found) {
    struct epoll_event events[MOST_EVENTS];
    int n;
    do {
        if (PyErr_CheckSignals()) return -1;
        if (wait) {
            Py_BEGIN_ALLOW_THREADS
            n = epoll_wait(s->epoll, events, most, -1);
            Py_END_ALLOW_THREADS
        } else {
            n = epoll_wait(s->epoll, events, most, 0);
        }
    } while (n < 0 && errno == EINTR);
    if (n < 0) { PyErr_SetFromErrno(PyExc_OSError); return -1; }
    s->woke = monotonic();
    for (int k = 0; k < n; k++) {
        int fd = events[k].data.fd;
        Intake *intake = fd < s->room ? s->of[fd] : NULL;
        if (!intake) {
            if (tell(found, fd, (long)events[k].events)) return -1;
            continue;
        }
        int came = take(intake, fd);
        if (came < 0) return -1;
        if (came == MORE || came == WHOLE || came == FULL) count_lag(s, intake->read - intake->stamp);
        if (came > NOTHING && tell(found, fd, -came)) return -1;
    }
    return n;
}

static PyObject *Poll_poll(Poll *s, PyObject *args) {
    int wait, most;
    long long until;
    if (!PyArg_ParseTuple(args, "piL", &wait, &most, &until)) return NULL;
    if (most > MOST_EVENTS) most = MOST_EVENTS;
    PyObject *found = PyList_New(0);
    if (!found) return NULL;
    for (int64_t entered = monotonic();;) {
        if (poll_once(s, wait, most, found) < 0) { Py_DECREF(found); return NULL; }
        if (!wait || PyList_GET_SIZE(found)) return found;
        int64_t now = monotonic();
        if (now - s->woke > s->longest) s->longest = now - s->woke;
        if (now >= until || now - entered >= SLICE_NS) return found;
    }
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
     "At most `most` are looked at in one round. If it may wait and there is nothing to tell, it goes on, until\n"
     "CLOCK_MONOTONIC says `until` (ns) or 2 ms have passed."},
    {"drain_lags", (PyCFunction)Poll_drain_lags, METH_NOARGS, "How many of the intakes' reads since last time had a\n"
     "receive lag from one edge up to the next (uint32 each)."},
    {"take_longest", (PyCFunction)Poll_take_longest, METH_NOARGS,
     "Longest round (ns, without its wait) since last time, of those that Python was told nothing of."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Poll_getset[] = {
    {"woke", (getter)get_woke, NULL, "when the last wait ended, CLOCK_MONOTONIC ns", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject Poll_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "tailgate.loadgen.injector.http._intake.Poll",
    .tp_doc = "Poll(epoll, edges): waits on a descriptor of epoll, and reads where it was given an intake.\n\n"
              "Edges (int64 each) are those of the receive lags' buckets, in ns, rising.",
    .tp_basicsize = sizeof(Poll),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Poll_init,
    .tp_dealloc = (destructor)Poll_dealloc,
    .tp_methods = Poll_methods,
    .tp_getset = Poll_getset,
};
