//! Writes the tables of a qcow2 image. [`guest_formats::qcow2::Writer`] makes them. They are
//! written one at a time, from memory of the pool that is for them alone.
//!
//! The header makes an image of the output. So the output is cleared of another one's before anything
//! is written, and all else is flushed before the header is written.

use guest_formats::qcow2::{CLUSTER, Writer};
use guest_kit::failure::{Failure, Op};
use guest_kit::virtio::requests::{Kind, Request, STATUS_OK};

use crate::disks::OUTPUT;
use crate::failure::failed;
use crate::pool::{Place, Pool};
use crate::{SECTOR, to_u32, to_usize};

/// The tables of one conversion.
#[derive(Debug)]
pub(super) struct Tables {
    writer: Writer,
    /// The memory of the table that is being written.
    place: Place,
    /// How many bytes the output may have.
    room: u64,
    /// Whether the output is still to be flushed before the header is written.
    unflushed: bool,
    busy: Option<Busy>,
}

/// The request that is under way.
#[derive(Clone, Copy, Debug)]
enum Busy {
    /// A table is written at this offset of the output.
    Table(u64),
    Flush,
}

impl Tables {
    /// The tables for a disk of `size` bytes, on an output that may have `room` bytes and that
    /// `flushes` if asked to.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the format has no disks of this size, or there is no memory.
    pub(super) fn new(
        size: u64,
        room: u64,
        flushes: bool,
        pool: &mut Pool,
    ) -> Result<Self, Failure> {
        let too_large = |error| {
            failed(
                Op::Refused,
                0,
                &format_args!("{error}; convert it with --output-format raw"),
            )
        };
        let writer = Writer::new(size).map_err(too_large)?;
        let no_memory = || Failure::new(Op::Init, OUTPUT, &"there is no memory for its tables");
        Ok(Self {
            writer,
            place: pool.take(to_usize(CLUSTER)).ok_or_else(no_memory)?,
            room,
            unflushed: flushes,
            busy: None,
        })
    }

    /// The request that makes zero what lies where the header will be, if there is room for any.
    pub(super) fn clear(&mut self, pool: &mut Pool) -> Option<Request> {
        let length = CLUSTER.min(self.room / SECTOR * SECTOR);
        if length == 0 {
            return None;
        }
        let bytes = pool.bytes_mut(self.place.offset(), to_usize(length));
        bytes.fill(0);
        Some(self.write(pool, 0, length))
    }

    /// The request that writes the first `length` bytes of the memory to the offset `at`.
    fn write(&mut self, pool: &Pool, at: u64, length: u64) -> Request {
        self.busy = Some(Busy::Table(at));
        Request {
            kind: Kind::Write,
            sector: at / SECTOR,
            address: pool.address(self.place.offset()),
            len: to_u32(to_usize(length)),
        }
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
        let needed = at.saturating_add(length);
        match needed <= self.room {
            true => Ok(()),
            false => Err(no_room(needed)),
        }
    }

    /// The request that writes the next complete table, or that flushes what the header makes an
    /// image of, unless another one is under way. `all` says
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
        if self.unflushed && self.writer.has_only_header() {
            self.unflushed = false;
            self.busy = Some(Busy::Flush);
            return Ok(Some(Request::FLUSH));
        }
        let buffer = pool.bytes_mut(self.place.offset(), to_usize(CLUSTER));
        let Some(at) = self.writer.take_table(buffer) else {
            return Ok(None);
        };
        self.check_room(at, CLUSTER)?;
        Ok(Some(self.write(pool, at, CLUSTER)))
    }

    /// Says that the request has come back with this status byte.
    pub(super) fn take(&mut self, status: u8) -> Result<(), Failure> {
        let (op, at) = match self.busy.take() {
            Some(Busy::Flush) => (Op::Flush, 0),
            Some(Busy::Table(at)) => (Op::Write, at),
            None => (Op::Write, 0),
        };
        match status {
            STATUS_OK => Ok(()),
            status => Err(Failure::answered(op, OUTPUT, at / SECTOR, status)),
        }
    }

    /// Whether no request is under way, and no table waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.is_none() && self.writer.is_done()
    }

    /// The length of the output in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.writer.length()
    }
}

/// The failure of an output that may not have the `needed` bytes that it takes at the least.
pub(crate) fn no_room(needed: u64) -> Failure {
    Failure {
        sector: needed.div_ceil(SECTOR),
        ..Failure::new(
            Op::Room,
            OUTPUT,
            &format_args!("the output needs {needed} bytes"),
        )
    }
}
