/* A streaming completions server whose schedule is exact: the truth that other figures are held against.
 *
 *   exact_server [--port P] [--bind 127.0.0.1] [--ttft-us 50000] [--itl-us 20000] [--tokens 200] [--cpu N]
 *                [--log FILE] [--stall-ms 0] [--stall-every-ms 3000]
 *
 * Token i of a request leaves at  a + ttft + i * itl,  where a is the KERNEL's receive stamp of the last
 * byte of the request: the server's own lateness in reading does not move the schedule. "max_tokens" of
 * the body overrides --tokens. One thread, epoll_pwait2 with nanosecond deadlines, loopback only.
 * What it can't hide it measures: GET /lateness gives the distribution of (send time - due time). With --log it
 * writes at its end, for each token, int64 x 4: the number at the end of the request's X-Request-Id, the token's
 * index, and the clock (CLOCK_REALTIME, ns) right before and right after its send. With --stall-ms nothing leaves
 * for so long in every --stall-every-ms, and then all that is due at once.
 * GET /v1/models, /health and /metrics (prompt and generation tokens) answer as a vLLM server would.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <sched.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 20000
#define IN_CAP (1 << 16)

typedef struct {
    char *in;          /* bytes of the request not yet complete */
    size_t len, cap;
    int open, left, sent, prompt;
    int64_t row; /* the number at the end of its X-Request-Id */
    uint32_t generation; /* so that a queued deadline of a closed connection is not honoured */
    int64_t next;
} Conn;

typedef struct { int64_t due; int fd; uint32_t generation; } Due;
typedef struct { Due *at; size_t head, tail, cap; } Queue; /* deadlines of one kind only grow: a FIFO is sorted */

static Conn conns[MAX_FD];
static Queue firsts, nexts;
static int64_t ttft = 50000000, itl = 20000000;
static int tokens = 200;
static uint64_t prompt_total, generated_total, requests_total;
static uint32_t late[64 * 16]; /* 16 buckets per octave of microseconds */
static int64_t late_max;
static volatile sig_atomic_t stopping;
typedef struct { int64_t row, token, before, after; } Sent;
static Sent *sent_log;
static size_t sent_count, sent_cap;
static const char *log_path;
static int64_t stall, stall_every = 3000000000;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void push(Queue *q, Due d) {
    if (q->tail == q->cap) {
        size_t n = q->tail - q->head;
        if (q->head > q->cap / 2) {
            memmove(q->at, q->at + q->head, n * sizeof(Due));
        } else {
            q->cap = q->cap ? 2 * q->cap : 4096;
            Due *fresh = malloc(q->cap * sizeof(Due));
            if (n) memcpy(fresh, q->at + q->head, n * sizeof(Due));
            free(q->at);
            q->at = fresh;
        }
        q->head = 0;
        q->tail = n;
    }
    q->at[q->tail++] = d;
}

static void drop(int fd) {
    Conn *c = &conns[fd];
    close(fd);
    free(c->in);
    c->in = NULL;
    c->len = c->cap = 0;
    c->open = 0;
    c->generation++;
}

static void put(int fd, const char *data, size_t n) {
    /* A client that reads so slowly that the socket is full is dropped: this server never waits. */
    if (send(fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n) drop(fd);
}

static void note_lateness(int64_t ns) {
    if (ns > late_max) late_max = ns;
    double us = ns / 1000.0;
    int slot = 0;
    for (double edge = 1.0; us >= edge && slot < 64 * 16 - 1; edge *= 1.0442737824274138) slot++;
    late[slot]++;
}

static double late_quantile(double q) {
    uint64_t n = 0, seen = 0;
    for (int i = 0; i < 64 * 16; i++) n += late[i];
    double edge = 1.0;
    for (int i = 0; i < 64 * 16; i++, edge *= 1.0442737824274138) {
        seen += late[i];
        if (n && seen >= q * n) return edge / 1000.0;
    }
    return 0;
}

static void answer_text(int fd, const char *type, const char *body) {
    char out[4096];
    int n = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n%s", type,
                     strlen(body), body);
    put(fd, out, n);
}

static void token(int fd, int64_t due) {
    Conn *c = &conns[fd];
    char out[2048], event[512];
    int last = c->left == 1, n = 0;
    if (c->sent == 0)
        n = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                         "transfer-encoding: chunked\r\n\r\n");
    int m = sprintf(event,
                    "data: {\"id\":\"cmpl-0123456789abcdef0123456789abcdef\",\"object\":\"text_completion\","
                    "\"created\":1764000000,\"model\":\"exact\",\"choices\":[{\"index\":0,\"text\":\" tok%d\","
                    "\"logprobs\":null,\"finish_reason\":%s,\"stop_reason\":null}]}\n\n",
                    c->sent, last ? "\"length\"" : "null");
    n += sprintf(out + n, "%x\r\n%s\r\n", m, event);
    c->sent++;
    c->left--;
    generated_total++;
    if (last) {
        m = sprintf(event,
                    "data: {\"id\":\"cmpl-0123456789abcdef0123456789abcdef\",\"object\":\"text_completion\","
                    "\"created\":1764000000,\"model\":\"exact\",\"choices\":[],\"usage\":{\"prompt_tokens\":%d,"
                    "\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n",
                    c->prompt, c->prompt + c->sent, c->sent);
        n += sprintf(out + n, "%x\r\n%s\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", m, event);
    }
    int64_t before = now_ns();
    note_lateness(before - due);
    uint32_t generation = c->generation;
    put(fd, out, n);
    if (log_path) {
        if (sent_count == sent_cap) sent_log = realloc(sent_log, (sent_cap = sent_cap ? 2 * sent_cap : 1 << 16) * sizeof(Sent));
        sent_log[sent_count++] = (Sent){c->row, c->sent - 1, before, now_ns()};
    }
    if (!last && c->open) push(&nexts, (Due){due + itl, fd, generation});
}

static int64_t fire(Queue *q, int64_t now) {
    while (q->head < q->tail && q->at[q->head].due <= now) {
        Due d = q->at[q->head++];
        if (conns[d.fd].open && conns[d.fd].generation == d.generation) token(d.fd, d.due);
    }
    return q->head < q->tail ? q->at[q->head].due : INT64_MAX;
}

static int number_after(const char *body, const char *key, int otherwise) {
    const char *p = strstr(body, key);
    if (!p) return otherwise;
    p += strlen(key);
    while (*p == ' ' || *p == ':') p++;
    int value = atoi(p);
    return value > 0 ? value : otherwise;
}

static void request(int fd, const char *head, const char *body, int64_t stamp) {
    Conn *c = &conns[fd];
    char text[1024];
    if (!strncmp(head, "GET /v1/models", 14)) {
        answer_text(fd, "application/json",
                    "{\"object\":\"list\",\"data\":[{\"id\":\"exact\",\"object\":\"model\",\"owned_by\":\"vllm\","
                    "\"max_model_len\":1000000}]}");
    } else if (!strncmp(head, "GET /health", 11)) {
        answer_text(fd, "text/plain", "");
    } else if (!strncmp(head, "GET /metrics", 12)) {
        snprintf(text, sizeof text,
                 "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{model_name=\"exact\"} %lu.0\n"
                 "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{model_name=\"exact\"} %lu.0\n"
                 "# TYPE vllm:request_success_total counter\n"
                 "vllm:request_success_total{finished_reason=\"length\",model_name=\"exact\"} %lu.0\n",
                 prompt_total, generated_total, requests_total);
        answer_text(fd, "text/plain; version=0.0.4", text);
    } else if (!strncmp(head, "GET /lateness", 13)) {
        snprintf(text, sizeof text, "{\"tokens\": %lu, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"p999_ms\": %.4f, \"max_ms\": %.4f}\n",
                 generated_total, late_quantile(0.5), late_quantile(0.99), late_quantile(0.999), late_max / 1e6);
        answer_text(fd, "application/json", text);
    } else if (!strncmp(head, "POST /v1/completions", 20)) {
        c->left = number_after(body, "\"max_tokens\"", tokens);
        c->sent = 0;
        c->row = -1;
        const char *id = strcasestr(head, "x-request-id:"), *id_end = id ? strchr(id, '\r') : NULL;
        if (id_end) {
            const char *digits = id_end;
            while (digits > id && digits[-1] >= '0' && digits[-1] <= '9') digits--;
            c->row = atoll(digits);
        }
        c->prompt = 1;
        const char *p = strstr(body, "\"prompt\":[");
        for (p = p ? p + 10 : ""; *p && *p != ']'; p++) c->prompt += *p == ',';
        prompt_total += c->prompt;
        requests_total++;
        push(&firsts, (Due){stamp + ttft, fd, c->generation});
    } else {
        const char *no = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        put(fd, no, strlen(no));
    }
}

static void readable(int fd) {
    Conn *c = &conns[fd];
    if (c->cap - c->len < IN_CAP) {
        c->cap = c->len + 2 * IN_CAP;
        c->in = realloc(c->in, c->cap);
    }
    char control[256];
    struct iovec iov = {c->in + c->len, c->cap - c->len - 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) drop(fd);
        return;
    }
    int64_t stamp = now_ns();
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&msg); m; m = CMSG_NXTHDR(&msg, m))
        if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_TIMESTAMPING) {
            struct timespec *t = (struct timespec *)CMSG_DATA(m);
            if (t->tv_sec) stamp = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
        }
    c->len += n;
    c->in[c->len] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return;
    size_t head = end + 4 - c->in, body = 0;
    *end = 0;
    char *length = strcasestr(c->in, "content-length:");
    *end = '\r';
    if (length) body = strtoul(length + 15, NULL, 10);
    if (c->len < head + body) return;
    c->len = 0;
    request(fd, c->in, end + 4, stamp);
    if (c->open && c->cap > IN_CAP * 2) { /* idle and streaming connections hold no buffer */
        free(c->in);
        c->in = NULL;
        c->cap = 0;
    }
}

static void on_signal(int s) { (void)s; stopping = 1; }

int main(int argc, char **argv) {
    int port = 0, cpu = -1;
    in_addr_t address = htonl(INADDR_LOOPBACK);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--bind")) address = inet_addr(argv[i + 1]);
        else if (!strcmp(argv[i], "--ttft-us")) ttft = atoll(argv[i + 1]) * 1000;
        else if (!strcmp(argv[i], "--itl-us")) itl = atoll(argv[i + 1]) * 1000;
        else if (!strcmp(argv[i], "--tokens")) tokens = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--cpu")) cpu = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--log")) log_path = argv[i + 1];
        else if (!strcmp(argv[i], "--stall-ms")) stall = atoll(argv[i + 1]) * 1000000;
        else if (!strcmp(argv[i], "--stall-every-ms")) stall_every = atoll(argv[i + 1]) * 1000000;
        else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1);
    /* Exactness first, where we may. Not SCHED_FIFO: that left readers waiting on its core for a whole tick. */
    setpriority(PRIO_PROCESS, 0, -10);
    if (cpu >= 0) {
        cpu_set_t one_cpu;
        CPU_ZERO(&one_cpu);
        CPU_SET(cpu, &one_cpu);
        sched_setaffinity(0, sizeof one_cpu, &one_cpu);
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = address};
    socklen_t alen = sizeof a;
    if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 8192)) { perror("bind"); return 2; }
    getsockname(listener, (struct sockaddr *)&a, &alen);
    printf("{\"port\": %d}\n", ntohs(a.sin_port));
    fflush(stdout);
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    while (!stopping) {
        int64_t now = now_ns(), into = stall ? now % stall_every : 0, a1, a2, wake;
        if (stall && into < stall) {
            wake = now - into + stall;
        } else {
            a1 = fire(&firsts, now), a2 = fire(&nexts, now), wake = a1 < a2 ? a1 : a2;
        }
        struct timespec wait = {0, 0}, *timeout = NULL;
        if (wake != INT64_MAX) {
            int64_t left = wake - now_ns();
            if (left > 0) wait = (struct timespec){left / 1000000000, left % 1000000000};
            timeout = &wait;
        }
        int n = epoll_pwait2(ep, events, 512, timeout, NULL);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) { readable(fd); continue; }
            for (int new; (new = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                if (new >= MAX_FD) { close(new); continue; }
                int stamps = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
                setsockopt(new, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                setsockopt(new, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps);
                conns[new].open = 1;
                ev = (struct epoll_event){.events = EPOLLIN, .data.fd = new};
                epoll_ctl(ep, EPOLL_CTL_ADD, new, &ev);
            }
        }
    }
    if (log_path) {
        FILE *file = fopen(log_path, "wb");
        if (!file || fwrite(sent_log, sizeof(Sent), sent_count, file) != sent_count || fclose(file)) perror(log_path);
    }
    fprintf(stderr, "{\"tokens\": %lu, \"late_p50_ms\": %.4f, \"late_p99_ms\": %.4f, \"late_max_ms\": %.4f}\n", generated_total,
            late_quantile(0.5), late_quantile(0.99), late_max / 1e6);
    return 0;
}
