//! A minimal writer of ELF64 executables (System V ABI, AMD64 supplement, chapters 4 and 5), for
//! guests with chosen segments and permissions, or with chosen defects.

use guest_abi::layout::IMAGE;

/// Segment permissions.
pub(crate) const R: u32 = 4;
pub(crate) const RW: u32 = 6;
pub(crate) const RX: u32 = 5;
pub(crate) const RWX: u32 = 7;

const HEADER_LEN: usize = 64;
const SEGMENT_HEADER_LEN: usize = 56;
const LOAD: u32 = 1;

/// One loadable segment.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) permissions: u32,
    pub(crate) bytes: Vec<u8>,
}

/// An executable. The defaults are those of a guest that can be loaded.
#[derive(Clone)]
pub(crate) struct Elf {
    /// `e_type`: 2 is an executable, 3 a position-independent one.
    pub(crate) kind: u16,
    /// `e_machine`: 62 is x86-64.
    pub(crate) machine: u16,
    pub(crate) entry: u64,
    pub(crate) segments: Vec<Segment>,
}

impl Elf {
    /// An executable with `code` at the start of the image, entered at its first byte.
    pub(crate) fn of(code: &[u8]) -> Self {
        Self {
            kind: 2,
            machine: 62,
            entry: IMAGE,
            segments: vec![],
        }
        .with(IMAGE, RX, code)
    }

    pub(crate) fn with(mut self, address: u64, permissions: u32, bytes: &[u8]) -> Self {
        self.segments.push(Segment {
            address,
            permissions,
            bytes: bytes.to_vec(),
        });
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = self.header();
        let mut offset = HEADER_LEN + self.segments.len() * SEGMENT_HEADER_LEN;
        for segment in &self.segments {
            file.extend(segment_header(segment, offset as u64));
            offset += segment.bytes.len();
        }
        for segment in &self.segments {
            file.extend(&segment.bytes);
        }
        file
    }

    fn header(&self) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(16, 0);
        header.extend(self.kind.to_le_bytes());
        header.extend(self.machine.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        header.extend(self.entry.to_le_bytes());
        header.extend((HEADER_LEN as u64).to_le_bytes());
        header.extend([0; 12]);
        let segments = u16::try_from(self.segments.len()).unwrap();
        for half in [64, 56, segments, 64, 0, 0] {
            header.extend(u16::to_le_bytes(half));
        }
        header
    }
}

fn segment_header(segment: &Segment, offset: u64) -> Vec<u8> {
    let len = segment.bytes.len() as u64;
    let mut header = Vec::new();
    header.extend(LOAD.to_le_bytes());
    header.extend(segment.permissions.to_le_bytes());
    for field in [offset, segment.address, segment.address, len, len, 1] {
        header.extend(u64::to_le_bytes(field));
    }
    header
}

/// The flat binary of an ELF image: what its segments put into memory, from the start of the
/// image up. Its entry point must be there.
pub(crate) fn flatten(elf: &[u8]) -> Vec<u8> {
    let half = |at: usize| u16::from_le_bytes(elf[at..at + 2].try_into().unwrap());
    let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
    let index = |value: u64| usize::try_from(value).unwrap();
    assert_eq!(long(24), IMAGE, "a flat binary is entered at its start");
    let mut flat = Vec::new();
    for number in 0..usize::from(half(56)) {
        let header = index(long(32)) + number * SEGMENT_HEADER_LEN;
        if word(header) != LOAD {
            continue;
        }
        let (offset, len) = (index(long(header + 8)), index(long(header + 32)));
        let start = index(long(header + 16) - IMAGE);
        flat.resize(flat.len().max(start + len), 0);
        flat[start..start + len].copy_from_slice(&elf[offset..offset + len]);
    }
    flat
}
