/* The usual body of a stream cut into its events, and which of them are plain tokens.
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

static PyMethodDef methods[] = {
    {"scan", scan, METH_VARARGS,
     "scan(body, first, second, but): per event whether it has both marks and not the third (a byte each, and a 0\n"
     "behind them), and where each ends (int64); or None, if the body is not a usual one."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_events", "Cuts the usual body of a stream into its events.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__events(void) { return PyModule_Create(&module); }
