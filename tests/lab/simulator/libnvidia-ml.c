/* Copyright (c) 2026, gpuops.fleet contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A library that stands for libnvidia-ml.so.1 where there is no GPU. It answers what gpu_probe asks, and nothing else.
 *
 *   cc -shared -fPIC -o libnvidia-ml.so.1 libnvidia-ml.c             two H100 of a driver 590
 *   cc -shared -fPIC -DOLD -o libnvidia-ml.so.1 libnvidia-ml.c       the same of a driver 390, without later functions
 *
 * NVML_SIM says, in words with commas between them, what goes wrong:
 *   gpus=N           how many GPUs there are
 *   init=CODE        NVML does not start
 *   block-init       NVML does not come back from its start
 *   handle=CODE      GPU 1 cannot be opened
 *   lost=GPU         that GPU is lost when it is opened
 *   lost-later=GPU   that GPU is lost when it is read
 *   block=GPU        a call for that GPU never comes back
 *   crash=GPU        a call for that GPU crashes
 *   exit=GPU         a call for that GPU ends the process
 *   deprecated       the functions that CUDA 13 deprecates are gone
 *   structs          all versioned structs have a version that is not known
 *   fabric2          the fabric has the struct of a driver 550, and is in progress
 *   mig              GPU 0 is in two MIG devices
 *   sick             GPU 0 has errors
 *   no-error-text    codes have no text
 * NVML_SIM_LOADED names a file that is made when the library is loaded.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    GPU_IS_LOST = 15,
    VERSION_MISMATCH = 25,
    DEPRECATED = 26,
};

enum { LINKS = 18, MIG_DEVICES = 2, ALL_LINKS_FIELD = 90, LINK_SPEED_FIELD = 164 };

static const unsigned long long MIB = 1024 * 1024;

struct device {
    int gpu;
    int mig; /* -1: the GPU itself */
};

static struct device devices[16][1 + MIG_DEVICES];

/* The word's number, 1 when it has none, -1 when the word is not there. */
static int sim(const char *word)
{
    const char *at = getenv("NVML_SIM");
    size_t length = strlen(word);

    while (at && *at) {
        if (!strncmp(at, word, length) && (!at[length] || strchr(",=:", at[length])))
            return at[length] && at[length] != ',' ? atoi(at + length + 1) : 1;
        at = strchr(at, ',');
        at += at != NULL;
    }
    return -1;
}

static int is_on(const char *word)
{
    return sim(word) != -1;
}

static void block(void)
{
    for (;;)
        pause();
}

static int put(char *out, unsigned int length, const char *text)
{
    if (strlen(text) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

/* What every call for a GPU goes through. */
static int reached(const struct device *device)
{
    if (sim("block") == device->gpu)
        block();
    if (sim("crash") == device->gpu)
        *(volatile int *)0 = 1;
    if (sim("exit") == device->gpu)
        _exit(3);
    return sim("lost-later") == device->gpu ? GPU_IS_LOST : SUCCESS;
}

static int is_sick(const struct device *device)
{
    return device->gpu == 0 && is_on("sick");
}

#define REACH(device)                  \
    do {                               \
        int code = reached(device);    \
        if (code)                      \
            return code;               \
    } while (0)

#define NUMBER(name, type, value)                    \
    int name(const struct device *device, type *out) \
    {                                                \
        REACH(device);                               \
        *out = (value);                              \
        return SUCCESS;                              \
    }

/* A real one prints nothing; but the stub of CUDA does, and nobody's output may suffer from it. */
__attribute__((constructor)) static void loaded(void)
{
    const char *path = getenv("NVML_SIM_LOADED");

    if (path)
        close(open(path, O_CREAT | O_WRONLY, 0600));
    puts("libnvidia-ml.so.1 (simulated)");
    fflush(stdout);
}

const char *nvmlErrorString(int code)
{
    if (is_on("no-error-text"))
        return NULL;
    switch (code) {
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlInit_v2(void)
{
    if (is_on("block-init"))
        block();
    return is_on("init") ? sim("init") : SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags)
{
    return flags == 1 ? nvmlInit_v2() : INVALID_ARGUMENT;
}

#ifdef OLD
#define DRIVER "390.157"
#else
#define DRIVER "590.48.01"
#endif

int nvmlSystemGetNVMLVersion(char *out, unsigned int length) { return put(out, length, "13." DRIVER); }
int nvmlSystemGetDriverVersion(char *out, unsigned int length) { return put(out, length, DRIVER); }

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    *count = is_on("gpus") ? (unsigned int)sim("gpus") : 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct device **device)
{
    if (sim("lost") == (int)index)
        return GPU_IS_LOST;
    if (index == 1 && is_on("handle"))
        return sim("handle");
    *device = &devices[index][0];
    (*device)->gpu = (int)index;
    (*device)->mig = -1;
    return SUCCESS;
}

int nvmlDeviceGetName(const struct device *device, char *out, unsigned int length)
{
    REACH(device);
    return put(out, length, device->mig < 0 ? "NVIDIA H100 (simulated)" : "NVIDIA H100 (simulated) MIG 3g.40gb");
}

int nvmlDeviceGetUUID(const struct device *device, char *out, unsigned int length)
{
    char text[80];

    REACH(device);
    snprintf(text, sizeof text, "%s-%08d-0000-4000-8000-%012d", device->mig < 0 ? "GPU" : "MIG", device->gpu,
             device->mig + 1);
    return put(out, length, text);
}

int nvmlDeviceGetSerial(const struct device *device, char *out, unsigned int length)
{
    char text[30];

    REACH(device);
    snprintf(text, sizeof text, "165000000000%d", device->gpu);
    return put(out, length, text);
}

int nvmlDeviceGetVbiosVersion(const struct device *device, char *out, unsigned int length)
{
    REACH(device);
    return put(out, length, "96.00.99.00.01");
}

struct pci_info {
    char bus_id_legacy[16];
    unsigned int domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

/* The driver has this from the start of NVML, so it knows it of a lost GPU, too. */
int nvmlDeviceGetPciInfo_v3(const struct device *device, struct pci_info *out)
{
    memset(out, 0, sizeof *out);
    out->bus = 0x1b + (unsigned int)device->gpu;
    out->device_id = 0x233010de;
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", out->bus);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(const struct device *device, int *major, int *minor)
{
    REACH(device);
    *major = 9;
    *minor = 0;
    return SUCCESS;
}

struct memory {
    unsigned long long total, free, used;
};

int nvmlDeviceGetMemoryInfo(const struct device *device, struct memory *out)
{
    REACH(device);
    out->total = (device->mig < 0 ? 81559 : 40320) * MIB;
    out->used = 484 * MIB;
    out->free = out->total - out->used;
    return SUCCESS;
}

struct utilization {
    unsigned int gpu, memory;
};

int nvmlDeviceGetUtilizationRates(const struct device *device, struct utilization *out)
{
    REACH(device);
    out->gpu = 97;
    out->memory = 41;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(const struct device *device, unsigned int sensor, unsigned int *out)
{
    REACH(device);
    if (is_on("deprecated"))
        return DEPRECATED;
    *out = 28;
    return sensor ? INVALID_ARGUMENT : SUCCESS;
}

int nvmlDeviceGetTemperatureThreshold(const struct device *device, unsigned int kind, unsigned int *out)
{
    REACH(device);
    *out = kind == 0 ? 92 : 89;
    return kind < 2 ? SUCCESS : NOT_SUPPORTED;
}

NUMBER(nvmlDeviceGetPowerUsage, unsigned int, 68570)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned int, 700000)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned int, 650000)

int nvmlDeviceGetPowerManagementLimitConstraints(const struct device *device, unsigned int *least, unsigned int *most)
{
    REACH(device);
    *least = 200000;
    *most = 750000;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(const struct device *device, unsigned int kind, unsigned int *out)
{
    REACH(device);
    *out = kind == 2 ? 2619 : 345 + kind;
    return SUCCESS;
}

int nvmlDeviceGetMaxClockInfo(const struct device *device, unsigned int kind, unsigned int *out)
{
    REACH(device);
    *out = kind == 2 ? 2620 : 1980 + kind;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(const struct device *device, unsigned long long *out)
{
    REACH(device);
    if (is_on("deprecated"))
        return DEPRECATED;
    *out = 0x1;
    return SUCCESS;
}

NUMBER(nvmlDeviceGetPerformanceState, unsigned int, 2)
NUMBER(nvmlDeviceGetPersistenceMode, unsigned int, 1)
NUMBER(nvmlDeviceGetComputeMode, unsigned int, 3)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned int, 1)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned int, 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned int, 8)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned int, 16)
NUMBER(nvmlDeviceGetPcieReplayCounter, unsigned int, 7)

int nvmlDeviceGetEccMode(const struct device *device, unsigned int *now, unsigned int *pending)
{
    REACH(device);
    *now = 1;
    *pending = 0;
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(const struct device *device, unsigned int kind, unsigned int period,
                                unsigned long long *out)
{
    REACH(device);
    if (device->gpu == 0 && is_on("mig") && period == 0)
        return NOT_SUPPORTED;
    /* More than 32 bits hold. */
    *out = is_sick(device) ? 5000000000ULL + 10 * period + kind : 0;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkState(const struct device *device, unsigned int link, unsigned int *active)
{
    REACH(device);
    if (link >= LINKS)
        return INVALID_ARGUMENT;
    *active = !(is_sick(device) && link == 3);
    return SUCCESS;
}

struct field {
    unsigned int id, scope;
    long long timestamp, latency;
    unsigned int type;
    int code;
    union {
        double real;
        unsigned int number;
        unsigned long long big;
        int with_sign;
    } value;
};

enum { TYPE_UNSIGNED = 1, TYPE_UNSIGNED_LONG_LONG = 3, TYPE_SIGNED = 5 };

static void read_field(const struct device *device, struct field *field)
{
    int sick = is_sick(device);

    field->code = SUCCESS;
    field->type = TYPE_UNSIGNED;
    field->value.big = 0;
    switch (field->id) {
    case 29: case 30: case 31:
        field->value.number = sick ? field->id - 28 : 0;
        return;
    case ALL_LINKS_FIELD:
        field->value.number = 25781;
        return;
#ifndef OLD
    case 82:
        field->type = TYPE_SIGNED;
        field->value.with_sign = 37;
        return;
    case 142: case 143: case 144: case 145:
        if (device->gpu == 0 && is_on("mig"))
            field->code = NOT_SUPPORTED;
        field->type = TYPE_UNSIGNED_LONG_LONG;
        field->value.big = sick ? field->id - 140 : 0;
        return;
    case LINK_SPEED_FIELD:
        /* No two links alike, so that nobody takes one for another. */
        field->value.number = 26562 - field->scope;
        return;
    case 230:
        field->value.number = sick ? 4 : 0;
        return;
#endif
    default:
        field->code = INVALID_ARGUMENT;
    }
}

int nvmlDeviceGetFieldValues(const struct device *device, int count, struct field *fields)
{
    REACH(device);
    for (int index = 0; index < count; index++)
        read_field(device, &fields[index]);
    return SUCCESS;
}

#ifdef OLD

int nvmlSystemGetCudaDriverVersion(int *version)
{
    *version = 9010;
    return SUCCESS;
}

#else

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    *version = 13010;
    return SUCCESS;
}

#define CHECK_VERSION(out, number)                                                                  \
    do {                                                                                            \
        if (is_on("structs") || (out)->version != (sizeof *(out) | (unsigned int)(number) << 24))   \
            return VERSION_MISMATCH;                                                                \
    } while (0)

struct memory_v2 {
    unsigned int version;
    unsigned long long total, reserved, free, used;
};

int nvmlDeviceGetMemoryInfo_v2(const struct device *device, struct memory_v2 *out)
{
    REACH(device);
    CHECK_VERSION(out, 2);
    out->total = (device->mig < 0 ? 81559 : 40320) * MIB;
    out->reserved = 480 * MIB;
    out->used = 4 * MIB;
    out->free = out->total - out->reserved - out->used;
    return SUCCESS;
}

struct temperature {
    unsigned int version, sensor;
    int value;
};

int nvmlDeviceGetTemperatureV(const struct device *device, struct temperature *out)
{
    REACH(device);
    CHECK_VERSION(out, 1);
    out->value = 29;
    return SUCCESS;
}

struct margin {
    unsigned int version;
    int value;
};

int nvmlDeviceGetMarginTemperature(const struct device *device, struct margin *out)
{
    REACH(device);
    CHECK_VERSION(out, 1);
    out->value = -3;
    return SUCCESS;
}

NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, is_sick(device) ? 0x248 : 0x1)
NUMBER(nvmlDeviceGetArchitecture, unsigned int, 9)

int nvmlDeviceGetMigMode(const struct device *device, unsigned int *now, unsigned int *pending)
{
    REACH(device);
    *now = *pending = device->gpu == 0 && is_on("mig");
    return SUCCESS;
}

NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned int, 7)

/* The first of the seven places is empty. */
int nvmlDeviceGetMigDeviceHandleByIndex(const struct device *device, unsigned int index, struct device **mig)
{
    REACH(device);
    if (device->gpu || !is_on("mig") || index < 1 || index > MIG_DEVICES)
        return NOT_FOUND;
    *mig = &devices[0][index];
    (*mig)->gpu = 0;
    (*mig)->mig = (int)index;
    return SUCCESS;
}

NUMBER(nvmlDeviceGetGpuInstanceId, unsigned int, (unsigned int)device->mig)
NUMBER(nvmlDeviceGetComputeInstanceId, unsigned int, 0)

struct sram {
    unsigned int version;
    unsigned long long counters[11];
    unsigned int threshold_exceeded;
};

int nvmlDeviceGetSramEccErrorStatus(const struct device *device, struct sram *out)
{
    REACH(device);
    CHECK_VERSION(out, 1);
    out->threshold_exceeded = (unsigned int)is_sick(device);
    return SUCCESS;
}

struct fabric_v1 {
    unsigned char cluster[16];
    unsigned int status, clique;
    unsigned char state;
};

struct fabric_v2 {
    unsigned int version;
    unsigned char cluster[16];
    unsigned int status, clique;
    unsigned char state;
    unsigned int health_mask;
};

struct fabric_v3 {
    unsigned int version;
    unsigned char cluster[16];
    unsigned int status, clique;
    unsigned char state;
    unsigned int health_mask;
    unsigned char health;
};

int nvmlDeviceGetGpuFabricInfo(const struct device *device, struct fabric_v1 *out)
{
    REACH(device);
    if (is_on("deprecated"))
        return DEPRECATED;
    out->status = 0;
    out->state = 3;
    return SUCCESS;
}

int nvmlDeviceGetGpuFabricInfoV(const struct device *device, void *any)
{
    struct fabric_v3 *out = any;
    struct fabric_v2 *older = any;

    REACH(device);
    if (is_on("fabric2")) {
        CHECK_VERSION(older, 2);
        older->state = 2;
        return SUCCESS;
    }
    CHECK_VERSION(out, 3);
    out->status = is_sick(device) ? 999 : 0;
    out->state = 3;
    out->health = is_sick(device) ? 2 : 1;
    return SUCCESS;
}

#endif
