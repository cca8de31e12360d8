/* What `_intake.c` (one connection's answer) and `_poll.c` (many of them, waited for) share. */
#ifndef TAILGATE_INTAKE_H
#define TAILGATE_INTAKE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define GIGA 1000000000LL

/* What a read came to; in what `Poll.poll` returns they are negative, where a mask would be. */
enum { MORE = 0, NOTHING = 1, WHOLE = 2, FULL = 3, ODD = 4, BROKEN = 5 };
typedef struct {
    char *at;
    size_t used, room;
} buffer;

typedef struct {
    PyObject_HEAD
    buffer body;   /* without the chunked coding, since the last `drain` */
    buffer raw;    /* as it came, since the last whole chunk: what the parser has not seen */
    /* int64, per read, since the last `drain`: the kernel's stamp, when we read, since when the bytes may have been
     * there (CLOCK_REALTIME, ns), and the body's size after it */
    buffer stamps, reads, unseen, ends;
    buffer emptied; /* a byte, per read: 1 where it left nothing behind, so that the stamp is its last byte's */
    int64_t base;  /* body bytes before `body` */
    int64_t limit; /* beyond so many body bytes it is FULL */
    int64_t received; /* received, framing included, since `begin` */
    int64_t stamp, read, since; /* of the last read */
    int64_t full_since; /* the last read was full: what it left has been there since; else 0 */
    int state, digits;
    uint64_t left;
    PyObject *odd;
    int error; /* errno of the last read, if it was BROKEN */
} Intake;

#pragma GCC visibility push(hidden) /* nobody else's `put` */
extern PyTypeObject Intake_type, Poll_type;

/* Room for so many bytes more; put them there. -1 with an exception. */
int grow(buffer *b, size_t more);
int put(buffer *b, const void *from, size_t n);

/* One read of what no poll had reported by `since`: what it came to, or -1 with an exception. */
int take(Intake *s, int fd, int64_t since);
#pragma GCC visibility pop

#endif
