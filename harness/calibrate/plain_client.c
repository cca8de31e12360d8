/* The floor: what a client in plain C needs to receive streamed answers with kernel stamps, and nothing else.
 *
 *   plain_client PORT RATE_PER_S SECONDS TOKENS
 *
 * Requests of TOKENS tokens leave at even gaps, each on an idle connection or a new one; epoll_pwait2 waits. Of every read
 * the kernel's stamp is kept and the events in it are counted by their blank lines: no chunked coding, no JSON, no records.
 * Prints one line of JSON: requests, chunks, CPU seconds, and the percentiles of TTFT and of the gaps in ms.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 20000
#define GIGA 1000000000LL

typedef struct { int left, first; int64_t sent, last; } Conn;

static Conn conns[MAX_FD];
static int idle[MAX_FD], idles;
static double *ttfts, *gaps;
static size_t n_ttfts, n_gaps;

static int64_t now_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * GIGA + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int connected(int epoll, int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || fd >= MAX_FD || connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    return fd;
}

static void ask(int fd, int tokens) {
    char body[200], request[400];
    int n = snprintf(body, sizeof body, "{\"model\":\"m\",\"prompt\":\"x\",\"max_tokens\":%d,\"stream\":true}", tokens);
    n = snprintf(request, sizeof request, "POST /v1/completions HTTP/1.1\r\nHost: l\r\nContent-Length: %d\r\n\r\n%s", n, body);
    conns[fd] = (Conn){.left = tokens, .sent = now_of(CLOCK_REALTIME)};
    if (send(fd, request, (size_t)n, 0) != n) die("send");
}

/* One read; whether the answer has ended. */
static int take(int fd) {
    static char data[16384];
    char control[128];
    struct iovec io = {data, sizeof data};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) die("recvmsg");
    struct timespec stamp;
    struct cmsghdr *given = CMSG_FIRSTHDR(&message);
    if (given) memcpy(&stamp, CMSG_DATA(given), sizeof stamp);
    else clock_gettime(CLOCK_REALTIME, &stamp);
    int64_t at = (int64_t)stamp.tv_sec * GIGA + stamp.tv_nsec;
    Conn *c = &conns[fd];
    for (char *p = data, *end = data + n; (p = memmem(p, (size_t)(end - p), "\"choices\":[{", 12)); p += 12) {
        if (!c->first) ttfts[n_ttfts++] = (double)(at - c->sent) / 1e6;
        else gaps[n_gaps++] = (double)(at - c->last) / 1e6;
        c->first = 1;
        c->last = at;
        c->left--;
    }
    return c->first && memmem(data, (size_t)n, "0\r\n\r\n", 5) != NULL;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double *values, size_t n, double share) { return n ? values[(size_t)((double)(n - 1) * share)] : 0; }

int main(int count, char **arguments) {
    if (count != 5) return 2;
    int port = atoi(arguments[1]), tokens = atoi(arguments[4]);
    double rate = atof(arguments[2]);
    int requests = (int)(rate * atof(arguments[3])), sent = 0, ended = 0, epoll = epoll_create1(0);
    ttfts = malloc((size_t)requests * sizeof *ttfts);
    gaps = malloc((size_t)requests * (size_t)tokens * sizeof *gaps);
    static struct epoll_event events[1024];
    int64_t start = now_of(CLOCK_MONOTONIC);
    while (ended < requests) {
        int64_t now = now_of(CLOCK_MONOTONIC), due = start + (int64_t)((double)sent / rate * 1e9);
        if (sent < requests && now >= due) {
            ask(idles ? idle[--idles] : connected(epoll, port), tokens);
            sent++;
            continue;
        }
        int64_t wait = sent < requests ? due - now : 100000000;
        struct timespec limit = {.tv_sec = wait / GIGA, .tv_nsec = wait % GIGA};
        int n = epoll_pwait2(epoll, events, 1024, &limit, NULL);
        for (int k = 0; k < n; k++)
            if (take(events[k].data.fd)) {
                idle[idles++] = events[k].data.fd;
                ended++;
            }
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(ttfts, n_ttfts, sizeof *ttfts, by_size);
    qsort(gaps, n_gaps, sizeof *gaps, by_size);
    printf("{\"requests\": %d, \"chunks\": %zu, \"cpu_s\": %.4f, \"ttft_p50\": %.3f, \"ttft_p99\": %.3f, \"itl_p50\": %.3f, \"itl_p99\": %.3f}\n",
           ended, n_ttfts + n_gaps, cpu, percentile(ttfts, n_ttfts, .5), percentile(ttfts, n_ttfts, .99),
           percentile(gaps, n_gaps, .5), percentile(gaps, n_gaps, .99));
    return 0;
}
