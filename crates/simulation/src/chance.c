/*
 * Chance from a seed, in the place of the machine's.
 *
 * Rust's standard library and the crate `getrandom` ask the function of this name for randomness, and
 * take the one that the program itself has. With DISTCI_SIMULATION_SEED in the environment it gives
 * the numbers that follow from the seed, else those of the kernel. Only for programs whose chance
 * comes from one thread.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static uint64_t state;
static int is_seeded;

/* Steele, Lea and Flood's SplitMix64. */
static uint64_t draw(void)
{
    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t bits = state;
    bits = (bits ^ (bits >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ (bits >> 27)) * UINT64_C(0x94d049bb133111eb);
    return bits ^ (bits >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned int flags)
{
    if (!is_seeded) {
        const char *seed = getenv("DISTCI_SIMULATION_SEED");
        if (seed == NULL)
            return syscall(SYS_getrandom, buffer, length, flags);
        state = strtoull(seed, NULL, 10) * UINT64_C(0xd1342543de82ef95) + 1;
        is_seeded = 1;
    }
    unsigned char *bytes = buffer;
    for (size_t at = 0; at < length; at++)
        bytes[at] = (unsigned char)draw();
    return (ssize_t)length;
}
