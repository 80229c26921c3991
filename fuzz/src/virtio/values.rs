//! Values of a driver's actions, for any device. Those that mean something (registers, ring
//! addresses, lengths) are favoured, so that a random input gets past the first checks; each can
//! still be anything.

use arbitrary::{Result, Unstructured};
use guest_abi::layout::{
    DMA_POOL, DMA_POOL_SIZE, IMAGE, INPUT_MMIO, OUTPUT_QUEUE, QUEUE_SIZE, RAM_SIZE, STACK,
};

use super::queue::{AVAIL, HEADERS, QueueLayout, TABLES, USED};

const STATUSES: [u32; 8] = [0, 1, 3, 0xb, 0xf, 0x80, 0x40, 7];
const LENGTHS: [u32; 14] = [
    0, 1, 15, 16, 17, 32, 48, 511, 512, 513, 1024, 4096, 0x1_0000, 0x10_0000,
];

/// A descriptor's fields (virtio 1.2, section 2.7.5).
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

pub fn register(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=7u8)? {
        0..=4 => u.int_in_range(0..=0x40u64)? * 4,
        5 => 0x70,
        6 => u.int_in_range(0..=0x140)?,
        _ => u.arbitrary()?,
    })
}

pub fn register_value(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    Ok(match u.int_in_range(0..=7u8)? {
        0..=3 => u.choose(&STATUSES)?.to_le_bytes().to_vec(),
        4 | 5 => u.arbitrary::<u32>()?.to_le_bytes().to_vec(),
        6 => bytes(u, 8)?,
        _ => bytes(u, 300)?,
    })
}

pub fn bytes(u: &mut Unstructured<'_>, max: usize) -> Result<Vec<u8>> {
    let len = u.int_in_range(0..=max)?.min(u.len());
    Ok(u.bytes(len)?.to_vec())
}

/// VERSION_1 nearly always; INDIRECT_DESC, EVENT_IDX and others as they come.
pub fn features(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.arbitrary::<u8>()? {
        255 => u.arbitrary()?,
        bits => (1 << 32) | u64::from(bits & 3) << 28,
    })
}

pub fn fields(u: &mut Unstructured<'_>, queue: QueueLayout) -> Result<Fields> {
    Ok(Fields {
        address: address(u, queue)?,
        len: length(u)?,
        flags: match u.arbitrary::<u8>()? {
            255 => u.arbitrary()?,
            bits => u16::from(bits & 7),
        },
        next: u.int_in_range(0..=33)?,
    })
}

pub fn length(u: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match u.int_in_range(0..=7u8)? {
        0..=5 => *u.choose(&LENGTHS)?,
        6 => u32::MAX - u.int_in_range(0..=0x1000u32)?,
        _ => u.arbitrary()?,
    })
}

/// Mostly where requests and data belong, sometimes rings, the edges of what devices may reach,
/// or anything.
pub fn address(u: &mut Unstructured<'_>, queue: QueueLayout) -> Result<u64> {
    Ok(match u.int_in_range(0..=15u8)? {
        0..=4 => queue.base + HEADERS + u.int_in_range(0..=127u64)? * 16,
        5..=9 => DMA_POOL + u.int_in_range(0..=2047u64)? * 512,
        10 => queue.base + TABLES + u.int_in_range(0..=255u64)? * 16,
        11 => {
            let ring = *u.choose(&[0, AVAIL, AVAIL + 2, USED, USED + 2])?;
            queue.base + ring + u.int_in_range(0..=64u64)?
        }
        12 => {
            let end = *u.choose(&[DMA_POOL + DMA_POOL_SIZE, OUTPUT_QUEUE + QUEUE_SIZE])?;
            end - u.int_in_range(0..=1024u64)?
        }
        13 | 14 => {
            let elsewhere = [
                0,
                IMAGE,
                INPUT_MMIO,
                STACK,
                RAM_SIZE,
                DMA_POOL - 1,
                u64::MAX,
            ];
            *u.choose(&elsewhere)?
        }
        _ => u.arbitrary()?,
    })
}
