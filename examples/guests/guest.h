/*
 * What a guest in C needs of the machine: ports, registers, and one virtqueue.
 *
 * It is short before it is careful: a request at a time, and what the device says is believed. A guest
 * that is to trust no device looks at more, as guest/kit/src/virtio does.
 *
 * The machine is described in docs/guest.md: ring 3, no interrupts, each page mapped to itself.
 */
#include <stdint.h>

#define COM1 0x3f8
#define EXIT 0xf4
#define IDLE 0xf5
#define POOL 0x200000ul /* memory that devices reach, for data */
#define ENTRIES 8

static inline void out(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "d"(port) : "memory");
}

static inline void wait_for_devices(void) {
    uint8_t nothing;
    __asm__ volatile("inb %1, %0" : "=a"(nothing) : "d"((uint16_t)IDLE) : "memory");
}

static inline void send(const void *bytes, uint64_t size) {
    __asm__ volatile("rep outsb" : "+S"(bytes), "+c"(size) : "d"((uint16_t)COM1) : "memory");
}

static inline volatile uint32_t *reg(unsigned slot, unsigned offset) {
    return (volatile uint32_t *)(0x10000000ul + slot * 0x1000ul + offset);
}

/* The queue of the device in a slot: virtio 1.2, section 2.7. */
struct descriptor { uint64_t address; uint32_t size; uint16_t flags, next; };
struct avail { uint16_t flags, index, ring[ENTRIES], event; };
struct used { uint16_t flags, index; struct { uint32_t head, size; } ring[ENTRIES]; uint16_t event; };
struct queue { volatile struct descriptor *table; volatile struct avail *avail; volatile struct used *used; };

/* Initialises the device in `slot` with one queue: virtio 1.2, section 3.1.1. */
static inline struct queue start(unsigned slot) {
    uint64_t base = 0x100000ul + slot * 0x10000ul;
    for (uint32_t status = 0; status <= 3; status = status * 2 + 1)
        *reg(slot, 0x70) = status; /* reset, ACKNOWLEDGE, DRIVER */
    *reg(slot, 0x24) = 1;
    *reg(slot, 0x20) = 1; /* VIRTIO_F_VERSION_1, bit 32 */
    *reg(slot, 0x70) = 11; /* FEATURES_OK */
    *reg(slot, 0x30) = 0; /* the first queue, and the most entries that it may have */
    if (*reg(slot, 0x70) != 11 || *reg(slot, 0x34) < ENTRIES)
        out(EXIT, 1);
    *reg(slot, 0x38) = ENTRIES;
    *reg(slot, 0x80) = base;
    *reg(slot, 0x90) = base + 0x1000;
    *reg(slot, 0xa0) = base + 0x2000;
    *reg(slot, 0x44) = 1;
    *reg(slot, 0x70) = 15; /* DRIVER_OK */
    return (struct queue){(void *)base, (void *)(base + 0x1000), (void *)(base + 0x2000)};
}

/* Gives the chain that starts at descriptor 0 to the device, and waits until it is used. */
static inline void ask(unsigned slot, struct queue queue) {
    uint16_t before = queue.used->index;
    queue.avail->ring[queue.avail->index % ENTRIES] = 0;
    __asm__ volatile("" : : : "memory");
    queue.avail->index++;
    __asm__ volatile("mfence" : : : "memory"); /* the index is seen before the device's wish is looked at */
    if (!(queue.used->flags & 1)) /* it wants to be kicked */
        *reg(slot, 0x50) = 0;
    while (queue.used->index == before)
        wait_for_devices();
    __asm__ volatile("" : : : "memory"); /* what the device has written is read after the index */
}
