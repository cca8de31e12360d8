/* A libnvidia-ml.so.1 whose GPUs follow a script, so that the real pynvml can be tested without one.
 *
 * FAKE_NVML_SCRIPT names a file with a line per GPU, `key=value` words:
 *   uuid name             its identity
 *   power slope           watts at t=0, and watts more per second
 *   energy0               millijoules at t=0; absent: no energy counter
 *   wrap=1                the counter has 32 bits
 *   restart               seconds: the counter begins anew from zero
 *   averaged=1            no instant power, only the averaged one
 *   lost                  seconds: the GPU falls off the bus
 *   throttle              seconds: hardware thermal slowdown from then on
 *   mig                   number of MIG instances
 *   pid                   a process that uses it
 *   nvlink=1              joined by NVLink to those that are so too; the others lie a NUMA node apart
 *   memory                a file that holds the bytes in use
 * FAKE_NVML_T0 is t=0 in seconds since the epoch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
typedef unsigned int u32;
typedef unsigned long long u64;

typedef struct device {
    char uuid[80], name[80], memory[256];
    double power, slope, energy0, lost, throttle, restart;
    int has_energy, wrap, averaged, mig, pid, is_mig, number, nvlink;
} device;

static device gpus[16], instances[16][8];
static int count = -1;
static double t0;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec + t.tv_nsec * 1e-9 - t0;
}

static void word(device *d, char *key, char *value) {
    if (!strcmp(key, "uuid")) snprintf(d->uuid, sizeof d->uuid, "%s", value);
    else if (!strcmp(key, "name")) snprintf(d->name, sizeof d->name, "%s", value);
    else if (!strcmp(key, "power")) d->power = atof(value);
    else if (!strcmp(key, "slope")) d->slope = atof(value);
    else if (!strcmp(key, "energy0")) { d->energy0 = atof(value); d->has_energy = 1; }
    else if (!strcmp(key, "wrap")) d->wrap = atoi(value);
    else if (!strcmp(key, "restart")) d->restart = atof(value);
    else if (!strcmp(key, "averaged")) d->averaged = atoi(value);
    else if (!strcmp(key, "lost")) d->lost = atof(value);
    else if (!strcmp(key, "throttle")) d->throttle = atof(value);
    else if (!strcmp(key, "mig")) d->mig = atoi(value);
    else if (!strcmp(key, "memory")) snprintf(d->memory, sizeof d->memory, "%s", value);
    else if (!strcmp(key, "nvlink")) d->nvlink = atoi(value);
    else if (!strcmp(key, "pid")) d->pid = atoi(value);
}

int nvmlInitWithFlags(u32 flags) {
    (void)flags;
    if (count >= 0) return OK;
    t0 = atof(getenv("FAKE_NVML_T0"));
    FILE *file = fopen(getenv("FAKE_NVML_SCRIPT"), "r");
    if (!file) return 9; /* driver not loaded */
    char line[512];
    for (count = 0; count < 16 && fgets(line, sizeof line, file); count++) {
        device *d = &gpus[count];
        d->number = count;
        d->lost = d->throttle = d->restart = 1e18;
        for (char *part = strtok(line, " \n"); part; part = strtok(NULL, " \n")) {
            char *value = strchr(part, '=');
            if (value) { *value = 0; word(d, part, value + 1); }
        }
        for (int i = 0; i < d->mig && i < 8; i++) {
            device *m = &instances[count][i];
            *m = *d;
            m->is_mig = 1;
            snprintf(m->uuid, sizeof m->uuid, "MIG-%s-%d", d->uuid + 4, i);
            snprintf(m->name, sizeof m->name, "%s-MIG-1g.10gb", d->name);
        }
    }
    fclose(file);
    return OK;
}

int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
    return code == UNSUPPORTED ? "Not Supported" : code == LOST ? "GPU is lost" : "Fake error";
}
int nvmlSystemGetDriverVersion(char *text, u32 size) { snprintf(text, size, "999.01"); return OK; }
int nvmlDeviceGetCount_v2(u32 *n) { *n = count; return OK; }

int nvmlDeviceGetHandleByIndex_v2(u32 index, device **handle) {
    if ((int)index >= count) return INVALID;
    *handle = &gpus[index];
    return OK;
}

#define WHOLE_GPU(d) do { if (now() >= (d)->lost) return LOST; if ((d)->is_mig) return UNSUPPORTED; } while (0)

int nvmlDeviceGetUUID(device *d, char *text, u32 size) { snprintf(text, size, "%s", d->uuid); return OK; }
int nvmlDeviceGetName(device *d, char *text, u32 size) { snprintf(text, size, "%s", d->name); return OK; }

int nvmlDeviceGetPowerUsage(device *d, u32 *milliwatts) {
    WHOLE_GPU(d);
    *milliwatts = (u32)((d->power + d->slope * now()) * 1000);
    return OK;
}

typedef struct { u32 field, scope; long long timestamp, latency; int type, result; union { double d; u32 u; u64 l; } value; } field;

int nvmlDeviceGetFieldValues(device *d, int n, field *fields) {
    WHOLE_GPU(d);
    for (int i = 0; i < n; i++) {
        fields[i].result = fields[i].field == 186 && !d->averaged ? OK : UNSUPPORTED;
        fields[i].type = 1;
        fields[i].value.l = 0;
        fields[i].value.u = (u32)((d->power + d->slope * now()) * 1000);
    }
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(device *d, u64 *millijoules) {
    WHOLE_GPU(d);
    if (!d->has_energy) return UNSUPPORTED;
    double t = (long long)(now() * 50) / 50.0; /* moves every 20 ms */
    double from = t >= d->restart ? d->restart : 0;
    double joules = d->power * (t - from) + d->slope * (t * t - from * from) / 2;
    u64 total = (u64)(from > 0 ? 0 : d->energy0) + (u64)(joules * 1000);
    *millijoules = d->wrap ? total & 0xffffffffULL : total;
    return OK;
}

int nvmlDeviceGetClockInfo(device *d, u32 type, u32 *mhz) {
    WHOLE_GPU(d);
    *mhz = type == 2 ? 2619 : now() >= d->throttle ? 900 : 1980;
    return OK;
}
int nvmlDeviceGetMaxClockInfo(device *d, u32 type, u32 *mhz) { WHOLE_GPU(d); *mhz = type == 2 ? 2619 : 1980; return OK; }
int nvmlDeviceGetCurrentClocksEventReasons(device *d, u64 *reasons) {
    WHOLE_GPU(d);
    *reasons = now() >= d->throttle ? 0x40 : 0;
    return OK;
}
int nvmlDeviceGetUtilizationRates(device *d, u32 *rates) { WHOLE_GPU(d); rates[0] = 87; rates[1] = 40; return OK; }
int nvmlDeviceGetTemperature(device *d, int sensor, u32 *c) { (void)sensor; WHOLE_GPU(d); *c = 61; return OK; }
int nvmlDeviceGetTotalEccErrors(device *d, int a, int b, u64 *n) { (void)a; (void)b; WHOLE_GPU(d); *n = 2; return OK; }
int nvmlDeviceGetPowerManagementLimit(device *d, u32 *mw) { WHOLE_GPU(d); *mw = 700000; return OK; }

int nvmlDeviceGetPcieThroughput(device *d, int counter, u32 *kilobytes) {
    WHOLE_GPU(d);
    struct timespec pause = {0, 20000000}; /* as long as the real one takes */
    nanosleep(&pause, NULL);
    *kilobytes = counter ? 2000 : 1000;
    return OK;
}

typedef struct { u64 total, free, used; } memory;
typedef struct { u32 version; u64 total, reserved, free, used; } memory_v2;

int nvmlDeviceGetP2PStatus(device *a, device *b, int what, int *status) {
    *status = what == 2 && a->nvlink && b->nvlink ? 0 : 5;
    return OK;
}
int nvmlDeviceGetTopologyCommonAncestor(device *a, device *b, int *level) { *level = a == b ? 0 : 40; return OK; }
int nvmlDeviceGetApplicationsClock(device *d, int kind, u32 *mhz) { WHOLE_GPU(d); *mhz = kind == 1 ? 1410 : 2619; return OK; }

static u64 in_use(device *d) {
    FILE *file = *d->memory ? fopen(d->memory, "r") : NULL;
    u64 used = 64424509440ULL;
    if (file) {
        if (fscanf(file, "%llu", &used) != 1) used = 0;
        fclose(file);
    }
    return used;
}

int nvmlDeviceGetMemoryInfo(device *d, memory *m) {
    if (now() >= d->lost) return LOST;
    m->total = 85899345920ULL; m->used = in_use(d); m->free = m->total - m->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(device *d, memory_v2 *m) {
    if (now() >= d->lost) return LOST;
    u64 scale = d->is_mig ? 8 : 1;
    m->total = 85899345920ULL / scale; m->used = in_use(d) / scale; m->reserved = 600000000ULL / scale;
    m->free = m->total - m->used - m->reserved;
    return OK;
}

typedef struct { u32 pid; u64 used; u32 gi, ci; } process;
int nvmlDeviceGetComputeRunningProcesses_v3(device *d, u32 *n, process *list) {
    if (now() >= d->lost) return LOST;
    if (!d->pid) { *n = 0; return OK; }
    if (*n < 1 || !list) { *n = 1; return TOO_SMALL; }
    *n = 1;
    list[0].pid = d->pid; list[0].used = 5000000000ULL; list[0].gi = list[0].ci = 0;
    return OK;
}

int nvmlDeviceGetMigMode(device *d, u32 *current, u32 *pending) {
    if (now() >= d->lost) return LOST;
    *current = *pending = d->mig > 0;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(device *d, u32 *n) { *n = d->mig ? 7 : 0; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(device *d, u32 index, device **handle) {
    if ((int)index >= d->mig) return NOT_FOUND;
    *handle = &instances[d->number][index];
    return OK;
}
