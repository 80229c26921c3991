//! Writes the tables of a qcow2 image. [`guest_formats::qcow2::Writer`] makes them. They are
//! written one at a time, from memory of the pool that is for them alone.

use guest_formats::qcow2::{CLUSTER, Writer};
use guest_kit::virtio::requests::{Kind, Request, STATUS_OK};

use crate::disks::OUTPUT;
use crate::failure::{Failure, Op};
use crate::pool::{Place, Pool};
use crate::{SECTOR, to_u32, to_u64, to_usize};

/// The tables of one conversion.
#[derive(Debug)]
pub(super) struct Tables {
    writer: Writer,
    /// The memory of the table that is being written.
    place: Place,
    /// How many bytes the output may have.
    room: u64,
    /// The offset on the output at which a table is being written, if one is.
    busy: Option<u64>,
}

impl Tables {
    /// The tables for a disk of `size` bytes, on an output that may have `room` bytes.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the format has no disks of this size, or there is no memory.
    pub(super) fn new(size: u64, room: u64, pool: &mut Pool) -> Result<Self, Failure> {
        let writer = Writer::new(size);
        let writer = writer.map_err(|error| Failure::new(Op::Init, OUTPUT, &error))?;
        let no_memory = || Failure::new(Op::Init, OUTPUT, &"there is no memory for its tables");
        Ok(Self {
            writer,
            place: pool.take(to_usize(CLUSTER)).ok_or_else(no_memory)?,
            room,
            busy: None,
        })
    }

    /// Whether clusters can be placed. The tables that earlier ones have completed must be taken
    /// before.
    pub(super) fn are_ready(&self) -> bool {
        !self.writer.has_table()
    }

    /// Places the `count` clusters of the disk from number `first` on, and returns their offset on
    /// the output in bytes.
    ///
    /// # Errors
    ///
    /// [`Failure`] if there is no room for them.
    pub(super) fn place(&mut self, first: u64, count: u64) -> Result<u64, Failure> {
        let at = self.writer.place(first, count);
        self.check_room(at, count * CLUSTER)?;
        Ok(at)
    }

    fn check_room(&self, at: u64, length: u64) -> Result<(), Failure> {
        if at.saturating_add(length) <= self.room {
            return Ok(());
        }
        let room = self.room;
        let detail = format_args!(
            "the image gets longer than the {room} bytes that the output may have: allow more with \
             --max-output-size, or give a larger device"
        );
        Err(Failure::new(Op::Write, OUTPUT, &detail))
    }

    /// The request that writes the next complete table, unless one is being written. `all` says
    /// whether all clusters are placed, so that the other tables are complete, too.
    pub(super) fn request(
        &mut self,
        pool: &mut Pool,
        all: bool,
    ) -> Result<Option<Request>, Failure> {
        if all {
            self.writer.finish();
        }
        if self.busy.is_some() {
            return Ok(None);
        }
        let buffer = pool.bytes_mut(self.place.offset(), to_usize(CLUSTER));
        let Some(at) = self.writer.take_table(buffer) else {
            return Ok(None);
        };
        self.check_room(at, to_u64(buffer.len()))?;
        self.busy = Some(at);
        Ok(Some(Request {
            kind: Kind::Write,
            sector: at / SECTOR,
            address: pool.address(self.place.offset()),
            len: to_u32(to_usize(CLUSTER)),
        }))
    }

    /// Says that the request has come back with this status byte.
    pub(super) fn take(&mut self, status: u8) -> Result<(), Failure> {
        let sector = self.busy.take().unwrap_or(0) / SECTOR;
        match status {
            STATUS_OK => Ok(()),
            status => Err(Failure::answered(Op::Write, OUTPUT, sector, status)),
        }
    }

    /// Whether no table is being written, and none waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.is_none() && self.writer.is_done()
    }

    /// The length of the output in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.writer.length()
    }
}
