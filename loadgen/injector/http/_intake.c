/* The hot path of a streamed answer: one read of a socket, its stamp, the chunked coding taken off, kept.
 *
 * What `connection.py` does in Python for any answer, done here for the one that matters: a body in chunks of which
 * nothing unusual is known. Whatever is unusual (the end of the stream, a chunk extension, a trailer, a byte too many,
 * a read without a kernel stamp) is not judged here: the bytes are handed back as they came, with what the HTTP parser
 * has not seen yet, and Python goes on as if it had read them itself. Without a compiler none of this is built, and
 * Python does everything.
 */
#include "_intake.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define READ_BYTES 16384
#define MOST_DIGITS 8

/* Where in the chunked coding we are (RFC 9112, 7.1). */
enum { SIZE, SIZE_LF, DATA, DATA_CR, DATA_LF, LAST_CR, LAST_LF };

int grow(buffer *b, size_t more) {
    if (b->used + more <= b->room) return 0;
    size_t room = b->room ? b->room : 512;
    while (room < b->used + more) room *= 2;
    char *at = PyMem_Realloc(b->at, room);
    if (!at) { PyErr_NoMemory(); return -1; }
    b->at = at;
    b->room = room;
    return 0;
}

int put(buffer *b, const void *from, size_t n) {
    if (grow(b, n)) return -1;
    memcpy(b->at + b->used, from, n);
    b->used += n;
    return 0;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Take n bytes in, or none at all: MORE, WHOLE, ODD, or -1 with an exception. */
static int decode(Intake *s, const char *from, size_t n) {
    const char *p = from, *end = from + n, *after_chunk = NULL;
    int state = s->state, digits = s->digits;
    uint64_t left = s->left;
    if (grow(&s->body, n)) return -1;
    size_t used = s->body.used;
    int whole = 0;
    while (p < end) {
        switch (state) {
        case SIZE: {
            int digit = hex(*p);
            if (digit >= 0 && digits < MOST_DIGITS) {
                left = left * 16 + (uint64_t)digit;
                digits++;
            } else if (*p == '\r' && digits) {
                state = SIZE_LF;
            } else {
                return ODD;
            }
            p++;
            break;
        }
        case SIZE_LF:
            if (*p++ != '\n') return ODD;
            digits = 0;
            state = left ? DATA : LAST_CR;
            break;
        case DATA: {
            size_t here = (size_t)(end - p) < left ? (size_t)(end - p) : (size_t)left;
            memcpy(s->body.at + used, p, here);
            used += here;
            p += here;
            left -= here;
            if (!left) state = DATA_CR;
            break;
        }
        case DATA_CR:
            if (*p++ != '\r') return ODD;
            state = DATA_LF;
            break;
        case DATA_LF:
            if (*p++ != '\n') return ODD;
            state = SIZE;
            after_chunk = p;
            break;
        case LAST_CR:
            if (*p++ != '\r') return ODD;
            state = LAST_LF;
            break;
        default: /* LAST_LF */
            if (*p++ != '\n' || p != end) return ODD;
            whole = 1;
        }
    }
    if (after_chunk) {
        s->raw.used = 0;
        from = after_chunk;
    }
    if (put(&s->raw, from, (size_t)(end - from))) return -1;
    s->state = state;
    s->digits = digits;
    s->left = left;
    s->body.used = used;
    return whole ? WHOLE : MORE;
}

static int64_t stamp_of(struct msghdr *message) {
    struct cmsghdr *c = CMSG_FIRSTHDR(message);
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_len < CMSG_LEN(sizeof(struct timespec))) return -1;
    struct timespec t;
    memcpy(&t, CMSG_DATA(c), sizeof t);
    return (int64_t)t.tv_sec * GIGA + t.tv_nsec;
}

int take(Intake *s, int fd, int64_t since) {
    static char data[READ_BYTES]; /* under the GIL, and nobody else's */
    _Alignas(struct cmsghdr) char control[256];
    struct iovec io = {data, sizeof data};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n;
    do n = recvmsg(fd, &message, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        s->error = errno;
        return errno == EAGAIN || errno == EWOULDBLOCK ? NOTHING : BROKEN;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    s->read = (int64_t)now.tv_sec * GIGA + now.tv_nsec;
    s->stamp = stamp_of(&message);
    s->since = s->full_since ? s->full_since : since;
    /* The kernel keeps one stamp for what it has merged: that of a full read may be a later byte's. */
    char emptied = n < READ_BYTES;
    s->full_since = emptied ? 0 : s->since;
    int came = n > 0 && s->stamp >= 0 ? decode(s, data, (size_t)n) : ODD;
    if (came < 0) return -1;
    if (came == ODD) {
        Py_XSETREF(s->odd, PyBytes_FromStringAndSize(data, n));
        return s->odd ? ODD : -1;
    }
    int64_t size = s->base + (int64_t)s->body.used;
    if (put(&s->stamps, &s->stamp, 8) || put(&s->reads, &s->read, 8) || put(&s->unseen, &s->since, 8) ||
        put(&s->ends, &size, 8) || put(&s->emptied, &emptied, 1)) return -1;
    s->received += n;
    return came == MORE && size > s->limit ? FULL : came;
}

static PyObject *Intake_begin(Intake *s, PyObject *args) {
    long long base, limit, full_since;
    if (!PyArg_ParseTuple(args, "LLL", &base, &limit, &full_since)) return NULL;
    buffer *all[] = {&s->body, &s->raw, &s->stamps, &s->reads, &s->unseen, &s->ends, &s->emptied};
    for (int k = 0; k < 7; k++) {
        all[k]->used = 0;
        if (grow(all[k], 1)) return NULL;
    }
    s->base = base;
    s->limit = limit;
    s->received = 0;
    s->full_since = full_since;
    s->state = SIZE;
    s->digits = 0;
    s->left = 0;
    Py_CLEAR(s->odd);
    Py_RETURN_NONE;
}

static void release(Intake *s) {
    buffer *all[] = {&s->body, &s->raw, &s->stamps, &s->reads, &s->unseen, &s->ends, &s->emptied};
    for (int k = 0; k < 7; k++) {
        PyMem_Free(all[k]->at);
        *all[k] = (buffer){NULL, 0, 0};
    }
    Py_CLEAR(s->odd);
}

static PyObject *Intake_end(Intake *s, PyObject *nothing) {
    (void)nothing;
    release(s);
    Py_RETURN_NONE;
}

static PyObject *Intake_drain(Intake *s, PyObject *nothing) {
    (void)nothing;
    PyObject *found = Py_BuildValue("y#y#y#y#y#y#", s->stamps.at, (Py_ssize_t)s->stamps.used, s->reads.at,
                                    (Py_ssize_t)s->reads.used, s->unseen.at, (Py_ssize_t)s->unseen.used, s->emptied.at,
                                    (Py_ssize_t)s->emptied.used, s->ends.at, (Py_ssize_t)s->ends.used, s->body.at,
                                    (Py_ssize_t)s->body.used);
    if (!found) return NULL;
    s->base += (int64_t)s->body.used;
    s->body.used = s->stamps.used = s->reads.used = s->unseen.used = s->emptied.used = s->ends.used = 0;
    return found;
}

static PyObject *get_stamp(Intake *s, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(s->stamp);
}

static PyObject *get_read(Intake *s, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(s->read);
}

static PyObject *get_since(Intake *s, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(s->since);
}

static PyObject *get_full_since(Intake *s, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(s->full_since);
}

static PyObject *get_received(Intake *s, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(s->received);
}

static PyObject *get_limit(Intake *s, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(s->limit);
}

static int set_limit(Intake *s, PyObject *value, void *unused) {
    (void)unused;
    if (!value) { PyErr_SetString(PyExc_AttributeError, "limit can't be deleted"); return -1; }
    long long limit = PyLong_AsLongLong(value);
    if (limit == -1 && PyErr_Occurred()) return -1;
    s->limit = limit;
    return 0;
}

static PyObject *get_odd(Intake *s, void *unused) {
    (void)unused;
    if (!s->odd) Py_RETURN_NONE;
    return Py_NewRef(s->odd);
}

static PyObject *get_error(Intake *s, void *unused) {
    (void)unused;
    return PyLong_FromLong(s->error);
}

static PyObject *get_raw(Intake *s, void *unused) {
    (void)unused;
    return PyBytes_FromStringAndSize(s->raw.at, (Py_ssize_t)s->raw.used);
}

static void Intake_dealloc(Intake *s) {
    release(s);
    Py_TYPE(s)->tp_free((PyObject *)s);
}

static PyMethodDef Intake_methods[] = {
    {"begin", (PyCFunction)Intake_begin, METH_VARARGS, "begin(base, limit, full_since): a chunk's size comes next."},
    {"end", (PyCFunction)Intake_end, METH_NOARGS, "Give the memory back."},
    {"drain", (PyCFunction)Intake_drain, METH_NOARGS, "stamps, reads, unseen (int64 each), emptied (bytes),\n"
     "ends (int64) and body since the last time."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Intake_getset[] = {
    {"stamp", (getter)get_stamp, NULL, "of the last read, ns", NULL},
    {"read", (getter)get_read, NULL, "when the last read was, ns", NULL},
    {"since", (getter)get_since, NULL, "since when the last read's bytes may have been there, ns", NULL},
    {"full_since", (getter)get_full_since, NULL, "if the last read was full, since when what it left is there; else 0",
     NULL},
    {"received", (getter)get_received, NULL, "received since `begin`", NULL},
    {"limit", (getter)get_limit, (setter)set_limit, "FULL beyond so many bytes of the body", NULL},
    {"odd", (getter)get_odd, NULL, "the last read's bytes, if they were ODD", NULL},
    {"error", (getter)get_error, NULL, "the last read's errno, if it was BROKEN", NULL},
    {"raw", (getter)get_raw, NULL, "what was taken since the last whole chunk, as it came", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject Intake_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "tailgate.loadgen.injector.http._intake.Intake",
    .tp_doc = "A chunked body while it arrives on one connection.",
    .tp_basicsize = sizeof(Intake),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)Intake_dealloc,
    .tp_methods = Intake_methods,
    .tp_getset = Intake_getset,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_intake", "Reads of streamed answers (`Intake`), and a poll that does them (`Poll`).", -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__intake(void) {
    static const struct { const char *name; int value; } results[] = {
        {"MORE", MORE}, {"NOTHING", NOTHING}, {"WHOLE", WHOLE}, {"FULL", FULL}, {"ODD", ODD}, {"BROKEN", BROKEN},
    };
    if (PyType_Ready(&Intake_type) < 0 || PyType_Ready(&Poll_type) < 0) return NULL;
    PyObject *m = PyModule_Create(&module);
    if (!m) return NULL;
    int failed = PyModule_AddObjectRef(m, "Intake", (PyObject *)&Intake_type) < 0 ||
                 PyModule_AddObjectRef(m, "Poll", (PyObject *)&Poll_type) < 0;
    for (size_t k = 0; k < sizeof results / sizeof *results; k++)
        failed = failed || PyModule_AddIntConstant(m, results[k].name, results[k].value) < 0;
    if (failed) {
        Py_DECREF(m);
        return NULL;
    }
    return m;
}
