/* The usual body of a stream cut into its events, and which of them are plain tokens; and when an answer's tokens came.
 *
 * What `sse.split` and `dialect.read_payloads` do in Python for any body, done here for the one that servers send nearly
 * always: one `data: ` line an event, a blank line behind it. Whatever else it is, the answer is None, and Python does it.
 */
#define _GNU_SOURCE /* memmem */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

static const char FIELD[] = {'d', 'a', 't', 'a', ':', ' '};

static int has(const char *from, const char *to, const Py_buffer *what) {
    return memmem(from, (size_t)(to - from), what->buf, (size_t)what->len) != NULL;
}

static PyObject *scan(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer body, first, second, but;
    if (!PyArg_ParseTuple(args, "y*y*y*y*", &body, &first, &second, &but)) return NULL;
    PyObject *found = NULL;
    const char *p = body.buf, *end = p + body.len, *stop;
    size_t n = 0, most = (size_t)body.len / (sizeof FIELD + 2) + 1; /* an event is no shorter */
    char *plain = PyMem_Malloc(most + 1);
    int64_t *ends = PyMem_Malloc(most * sizeof *ends);
    if (!plain || !ends) { PyErr_NoMemory(); goto done; }
    if (memchr(p, '\r', (size_t)body.len)) goto unusual;
    while (end - p >= (Py_ssize_t)sizeof FIELD && !memcmp(p, FIELD, sizeof FIELD)) {
        const char *payload = p + sizeof FIELD;
        stop = memchr(payload, '\n', (size_t)(end - payload));
        if (!stop || stop + 1 == end) break; /* not here whole */
        if (stop[1] != '\n') goto unusual;   /* a second line */
        plain[n] = (char)(has(payload, stop, &first) && has(payload, stop, &second) && !has(payload, stop, &but));
        p = stop + 2;
        ends[n++] = p - (const char *)body.buf;
    }
    if (!n || memmem(p, (size_t)(end - p), "\n\n", 2)) goto unusual;
    plain[n] = 0;
    found = Py_BuildValue("y#y#", plain, (Py_ssize_t)n + 1, (const char *)ends, (Py_ssize_t)(n * sizeof *ends));
    goto done;
unusual:
    found = Py_NewRef(Py_None);
done:
    PyMem_Free(plain);
    PyMem_Free(ends);
    PyBuffer_Release(&body);
    PyBuffer_Release(&first);
    PyBuffer_Release(&second);
    PyBuffer_Release(&but);
    return found;
}

/* Division that rounds down, as Python's. */
static int64_t floored(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static int64_t clipped(int64_t value, int64_t least, int64_t most) {
    return value < least ? least : value > most ? most : value;
}

static void put32(char **at, uint32_t value) {
    memcpy(*at, &value, sizeof value);
    *at += sizeof value;
}

enum { STAMPS, READS, UNSEEN, EMPTIED, READ_ENDS, KINDS, ENDS, BUFFERS };

/* What `arrivals.in_python` does, by one pass over reads and events; see there. */
static PyObject *arrivals(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer b[BUFFERS];
    long long sent, earlier, start, before, first, answer, late, came_answer = -1, last = -1, lag_max = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*LLLLLLL", &b[STAMPS], &b[READS], &b[UNSEEN], &b[EMPTIED], &b[READ_ENDS],
                          &b[KINDS], &b[ENDS], &sent, &earlier, &start, &before, &first, &answer, &late)) return NULL;
    PyObject *found = NULL;
    const int64_t *stamps = b[STAMPS].buf, *reads = b[READS].buf, *unseen = b[UNSEEN].buf, *read_ends = b[READ_ENDS].buf;
    const int64_t *ends = b[ENDS].buf;
    const char *emptied = b[EMPTIED].buf, *kinds = b[KINDS].buf;
    Py_ssize_t n = b[STAMPS].len / 8, events = b[KINDS].len, k = 0;
    long long client = 0, server = 0, contents = before;
    int first_coalesced = 0;
    char *us = PyMem_Malloc((size_t)events * 4 + 1), *censored = PyMem_Malloc((size_t)events * 13 + 1);
    char *us_end = us, *censored_end = censored;
    if (!us || !censored) { PyErr_NoMemory(); goto done; }
    if (b[READS].len != n * 8 || b[UNSEEN].len != n * 8 || b[READ_ENDS].len != n * 8 || b[EMPTIED].len != n ||
        b[ENDS].len < events * 8) {
        PyErr_SetString(PyExc_ValueError, "columns of different lengths");
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        int64_t lag = reads[i] - stamps[i], since = unseen[i] > sent ? unseen[i] : sent;
        if (i == 0 || lag > lag_max) lag_max = lag;
        if (earlier > since) since = earlier;
        if (since > stamps[i]) since = stamps[i];
        earlier = emptied[i] ? stamps[i] : 0;
        int64_t together = 0, last_end = 0;
        Py_ssize_t next = k;
        for (; next < events && start + ends[next] <= read_ends[i]; next++) {
            if (!kinds[next]) continue;
            together++;
            last_end = start + ends[next];
        }
        k = next;
        if (!together) continue;
        int is_first = contents == before;
        for (int64_t place = 1; place <= together; place++) {
            last = since + (stamps[i] - since) * place / together;
            if (first < 0) first = last;
            if (contents + place - 1 == answer) came_answer = last;
            put32(&us_end, (uint32_t)clipped(floored(last - first, 1000), 0, UINT32_MAX));
        }
        char exact = last_end == read_ends[i] && emptied[i];
        if (together > 1 || !exact) {
            put32(&censored_end, (uint32_t)contents);
            put32(&censored_end, (uint32_t)together);
            put32(&censored_end, (uint32_t)(int32_t)clipped(floored(since - first, 1000), INT32_MIN, INT32_MAX));
            *censored_end++ = exact;
        }
        if (together > 1 && lag > late) {
            client += together;
            first_coalesced |= before == 0 && is_first;
        } else if (together > 1) {
            server += together;
        }
        contents += together;
    }
    found = Py_BuildValue("y#y#LLLLLLO", us, (Py_ssize_t)(us_end - us), censored, (Py_ssize_t)(censored_end - censored),
                          first, came_answer, last, lag_max, client, server, first_coalesced ? Py_True : Py_False);
done:
    PyMem_Free(us);
    PyMem_Free(censored);
    for (int j = 0; j < BUFFERS; j++) PyBuffer_Release(&b[j]);
    return found;
}

static PyMethodDef methods[] = {
    {"arrivals", arrivals, METH_VARARGS, "arrivals(...): as `arrivals.in_python`."},
    {"scan", scan, METH_VARARGS,
     "scan(body, first, second, but): per event whether it has both marks and not the third (a byte each, and a 0\n"
     "behind them), and where each ends (int64); or None, if the body is not a usual one."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_events", "Cuts the usual body of a stream into its events, and tells when its tokens came.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__events(void) { return PyModule_Create(&module); }
