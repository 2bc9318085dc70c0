/* Stands in for NVIDIA's libnvidia-ml.so.1, which only a machine with its driver has: as many GPUs
   as FAKE_GPUS says, of 16 GiB each, with UUIDs of their numbers, and as many GiB in use. What
   nvidia-ml-py calls for a replica is here and nothing else; a call of anything more is "Function
   Not Found" there. */

#include <stdio.h>
#include <stdlib.h>

typedef struct { unsigned long long total, free, used; } memory_t;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, DRIVER_NOT_LOADED = 9 };

static unsigned count(void) {
    const char *text = getenv("FAKE_GPUS");
    return text ? (unsigned)atoi(text) : 0;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return getenv("FAKE_GPUS") ? SUCCESS : DRIVER_NOT_LOADED;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int status) {
    return status == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "Some Error";
}

int nvmlDeviceGetCount_v2(unsigned *number) {
    *number = count();
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index >= count()) return INVALID_ARGUMENT;
    *device = (void *)(size_t)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012zu", (size_t)device);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = 16ULL << 30;
    memory->used = (unsigned long long)(size_t)device << 30;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
