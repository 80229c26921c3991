//! A writer of VHDXs, with a log where one is wanted.

use super::Put;
use super::bytes::{le16, le32, le64, put};

const MIB: usize = 1 << 20;
const LOG: usize = MIB;
const METADATA: usize = 2 * MIB;
const BAT: usize = 3 * MIB;
const DATA: usize = 4 * MIB;

/// GUIDs as they lie in a file.
pub(crate) const GUID_BAT: [u8; 16] = [
    0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08,
];
const GUID_METADATA: [u8; 16] = [
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
];
const GUID_PARAMETERS: [u8; 16] = [
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b,
];
const GUID_SIZE: [u8; 16] = [
    0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8,
];
const GUID_SECTOR: [u8; 16] = [
    0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f,
];
const GUID_PHYSICAL: [u8; 16] = [
    0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56,
];
const GUID_ID: [u8; 16] = [
    0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46,
];
pub(crate) const LOG_GUID: [u8; 16] = [7; 16];

pub(crate) struct Vhdx {
    pub(crate) flags: u32,
    pub(crate) sector: u32,
    pub(crate) block: usize,
    pub(crate) size: usize,
    /// The entries of the BAT are zero on the disk, and in the log.
    pub(crate) bat_in_log: bool,
    pub(crate) puts: Vec<Put>,
    pub(crate) disk: Vec<u8>,
}

impl Vhdx {
    pub(crate) fn new(puts: &[Put], block: usize, size: usize) -> Self {
        Self {
            flags: 0,
            sector: 512,
            block,
            size,
            bat_in_log: false,
            puts: puts.to_vec(),
            disk: super::disk_of(puts, block, size),
        }
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = vec![0; DATA];
        put(&mut bytes, 0, b"vhdxfile");
        let log = if self.bat_in_log { LOG_GUID } else { [0; 16] };
        header(&mut bytes, 64 << 10, 1, &log);
        header(&mut bytes, 128 << 10, 2, &log);
        for at in [192 << 10, 256 << 10] {
            regions(&mut bytes, at);
        }
        self.metadata(&mut bytes);
        let mut bat = self.bat(&mut bytes);
        if self.bat_in_log {
            bat.resize(4096, 0);
            let stale = vec![0xdd; 4096];
            log_entry(&mut bytes, 0, 0, 5, &[(BAT as u64, &stale)]);
            log_entry(&mut bytes, 8192, 0, 6, &[(BAT as u64, &bat)]);
        } else {
            put(&mut bytes, BAT, &bat);
        }
        bytes
    }

    fn metadata(&self, bytes: &mut Vec<u8>) {
        put(bytes, METADATA, b"metadata");
        le16(bytes, METADATA + 10, 5);
        let items = [
            (GUID_PARAMETERS, 8),
            (GUID_SIZE, 8),
            (GUID_SECTOR, 4),
            (GUID_PHYSICAL, 4),
            (GUID_ID, 16),
        ];
        for (index, (guid, length)) in items.iter().enumerate() {
            let at = METADATA + 32 + index * 32;
            put(bytes, at, guid);
            le32(bytes, at + 16, (64 << 10) + index as u32 * 8);
            le32(bytes, at + 20, *length);
            le32(bytes, at + 24, 4);
        }
        let item = METADATA + (64 << 10);
        le32(bytes, item, self.block as u32);
        le32(bytes, item + 4, self.flags);
        le64(bytes, item + 8, self.size as u64);
        le32(bytes, item + 16, self.sector);
        le32(bytes, item + 24, self.sector);
        put(bytes, item + 32, &[9; 16]);
    }

    fn bat(&self, bytes: &mut Vec<u8>) -> Vec<u8> {
        let ratio = (self.sector as usize * (8 << 20)) / self.block;
        let mut bat = Vec::new();
        for (index, kind) in self.puts.iter().enumerate() {
            let at = (index + index / ratio) * 8;
            let entry = match kind {
                Put::Hole => 0,
                Put::Zero => 2,
                Put::ZeroAllocated => 3,
                Put::Data | Put::Compressed => {
                    let place = bytes.len();
                    let start = (index * self.block).min(self.size);
                    bytes.extend(&self.disk[start..(start + self.block).min(self.size)]);
                    bytes.resize(place + self.block, 0);
                    place as u64 | 6
                }
            };
            le64(&mut bat, at, entry);
        }
        bat
    }
}

pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Writes the checksum of the `length` bytes at `at`.
pub(crate) fn seal(bytes: &mut Vec<u8>, at: usize, length: usize) {
    le32(bytes, at + 4, 0);
    let sum = crc(&bytes[at..at + length]);
    le32(bytes, at + 4, sum);
}

pub(crate) fn header(bytes: &mut Vec<u8>, at: usize, sequence: u64, log: &[u8; 16]) {
    put(bytes, at, b"head");
    le64(bytes, at + 8, sequence);
    put(bytes, at + 48, log);
    le16(bytes, at + 66, 1);
    le32(bytes, at + 68, MIB as u32);
    le64(bytes, at + 72, LOG as u64);
    seal(bytes, at, 4096);
}

pub(crate) fn regions(bytes: &mut Vec<u8>, at: usize) {
    put(bytes, at, b"regi");
    le32(bytes, at + 8, 2);
    for (index, (guid, place)) in [(GUID_BAT, BAT), (GUID_METADATA, METADATA)]
        .iter()
        .enumerate()
    {
        let entry = at + 16 + index * 32;
        put(bytes, entry, guid);
        le64(bytes, entry + 16, *place as u64);
        le32(bytes, entry + 24, MIB as u32);
        le32(bytes, entry + 28, 1);
    }
    seal(bytes, at, 64 << 10);
}

/// Writes an entry of the log at `at` of the ring that changes one sector a piece.
pub(crate) fn log_entry(
    bytes: &mut Vec<u8>,
    at: usize,
    tail: u32,
    sequence: u64,
    changes: &[(u64, &[u8])],
) {
    let length = 4096 * (1 + changes.len());
    let mut entry = vec![0; length];
    put(&mut entry, 0, b"loge");
    le32(&mut entry, 8, length as u32);
    le32(&mut entry, 12, tail);
    le64(&mut entry, 16, sequence);
    le32(&mut entry, 24, changes.len() as u32);
    put(&mut entry, 32, &LOG_GUID);
    for (index, (target, sector)) in changes.iter().enumerate() {
        let descriptor = 64 + index * 32;
        put(&mut entry, descriptor, b"desc");
        put(&mut entry, descriptor + 4, &sector[4092..]);
        put(&mut entry, descriptor + 8, &sector[..8]);
        le64(&mut entry, descriptor + 16, *target);
        le64(&mut entry, descriptor + 24, sequence);
        let data = 4096 * (1 + index);
        put(&mut entry, data, b"data");
        le32(&mut entry, data + 4, (sequence >> 32) as u32);
        put(&mut entry, data + 8, &sector[8..4092]);
        le32(&mut entry, data + 4092, sequence as u32);
    }
    seal(&mut entry, 0, length);
    put(bytes, LOG + at, &entry);
}
