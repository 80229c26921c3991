//! Bytes to actions of a console's driver, and of who is at its other end.

use arbitrary::{Result, Unstructured};
use guest_abi::layout::DMA_POOL;

use super::super::virtio::queue::{QueueLayout, TABLES};
use super::super::virtio::values::{
    Fields, address, bytes, features, fields, length, register, register_value,
};

/// Bytes that are offered or asked for at once, at most.
pub const MOST_BYTES: usize = 300;

/// One step.
#[derive(Clone, Debug)]
pub enum Action {
    WriteRegister {
        offset: u64,
        bytes: Vec<u8>,
    },
    ReadRegister {
        offset: u64,
        len: usize,
    },
    Start {
        features: u64,
        sizes: [u16; 2],
    },
    Descriptor {
        table: u64,
        index: u16,
        fields: Fields,
    },
    /// A chain that is nearly right.
    Chain {
        parts: Vec<(u64, u32, bool)>,
        indirect: Option<u16>,
    },
    Available(u16),
    AvailIndex(u16),
    Poke {
        address: u64,
        bytes: Vec<u8>,
    },
    Notify,
    Work,
    Help,
    Leave,
    /// Somebody takes so many of the bytes that were transmitted.
    Take(usize),
    /// Somebody sends so many.
    Send(usize),
    /// Says whether more will be sent.
    Expect(bool),
    /// Nobody reads any more.
    Close,
}

impl Action {
    /// The next action, and which of the two queues it is for.
    pub fn take(u: &mut Unstructured<'_>) -> Result<(usize, Self)> {
        let choice: u8 = u.arbitrary()?;
        let index = usize::from(choice >> 7);
        let queue = QueueLayout::of(index);
        let action = match choice & 0x1f {
            0 | 1 => Self::WriteRegister {
                offset: register(u)?,
                bytes: register_value(u)?,
            },
            2 => Self::ReadRegister {
                offset: register(u)?,
                len: *u.choose(&[0, 1, 2, 4, 4, 8, 3, 16, 300])?,
            },
            3 => Self::Start {
                features: features(u)?,
                sizes: [1 << u.int_in_range(0..=6)?, 1 << u.int_in_range(0..=6)?],
            },
            4..=7 => Self::Descriptor {
                table: *u.choose(&[queue.table(), queue.table(), queue.base + TABLES])?,
                index: u.int_in_range(0..=33)?,
                fields: fields(u, queue)?,
            },
            8..=15 => Self::Chain {
                parts: parts(u, index, queue)?,
                // Half of them in an indirect table, of which there are 32.
                indirect: u.int_in_range(0..=63u16)?.checked_sub(32),
            },
            16 | 17 => Self::Available(u.int_in_range(0..=33)?),
            18 => Self::AvailIndex(u.arbitrary()?),
            19 => Self::Poke {
                address: address(u, queue)?,
                bytes: bytes(u, 16)?,
            },
            20 | 21 => Self::Notify,
            22 => Self::Help,
            23 => Self::Leave,
            24 | 25 => Self::Take(u.int_in_range(0..=MOST_BYTES)?),
            26 | 27 => Self::Send(u.int_in_range(0..=MOST_BYTES)?),
            28 => match u.int_in_range(0..=15u8)? {
                15 => Self::Close,
                expect => Self::Expect(expect % 2 == 1),
            },
            _ => Self::Work,
        };
        Ok((index, action))
    }
}

/// Buffers for the right direction mostly, in the pool mostly, short mostly.
fn parts(
    u: &mut Unstructured<'_>,
    index: usize,
    queue: QueueLayout,
) -> Result<Vec<(u64, u32, bool)>> {
    let mut parts = Vec::new();
    for _ in 0..u.int_in_range(1..=4u8)? {
        let at = match u.int_in_range(0..=15u8)? {
            15 => address(u, queue)?,
            slot => DMA_POOL + u64::from(slot) * 0x1_0000,
        };
        let wild: u8 = u.arbitrary()?;
        let len = match wild & 7 {
            7 => length(u)?,
            _ => u.int_in_range(0..=400)?,
        };
        let is_right = wild >> 3 < 31;
        parts.push((at, len, (index == 0) == is_right));
    }
    Ok(parts)
}
