//! A writer of sparse VMDKs: monolithic, and streamed with compressed grains and a footer.

use super::Put;
use super::bytes::{le16, le32, le64, put};

pub(crate) struct Vmdk {
    pub(crate) stream: bool,
    pub(crate) zero_grains: bool,
    pub(crate) grain: usize,
    pub(crate) size: usize,
    pub(crate) descriptor: String,
    pub(crate) puts: Vec<Put>,
    pub(crate) disk: Vec<u8>,
}

const TABLE: usize = 512;

impl Vmdk {
    pub(crate) fn new(stream: bool, puts: &[Put], grain: usize, size: usize) -> Self {
        let kind = if stream {
            "streamOptimized"
        } else {
            "monolithicSparse"
        };
        Self {
            stream,
            zero_grains: true,
            grain,
            size,
            descriptor: descriptor(kind, &format!("RW {} SPARSE \"disk.vmdk\"", size / 512)),
            puts: puts.to_vec(),
            disk: super::disk_of(puts, grain, size),
        }
    }

    fn header(&self, directory: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        put(&mut bytes, 0, b"KDMV");
        le32(&mut bytes, 4, if self.stream { 3 } else { 1 });
        let zero = u32::from(self.zero_grains) << 2;
        let stream = if self.stream { 0x3_0000 } else { 0 };
        le32(&mut bytes, 8, 1 | zero | stream);
        le64(&mut bytes, 12, (self.size / 512) as u64);
        le64(&mut bytes, 20, (self.grain / 512) as u64);
        le64(&mut bytes, 28, 1);
        le64(&mut bytes, 36, 4);
        le32(&mut bytes, 44, TABLE as u32);
        le64(&mut bytes, 56, directory);
        le64(&mut bytes, 64, 128);
        put(&mut bytes, 73, b"\n \r\n");
        le16(&mut bytes, 77, u16::from(self.stream));
        bytes
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let tables = self.puts.len().div_ceil(TABLE);
        let mut entries = vec![0_u32; tables * TABLE];
        // Header, descriptor, and for a plain file the directory and its tables, then grains.
        let directory = 5 * 512;
        let directory_room = (tables * 4).next_multiple_of(512);
        let first_table = directory + directory_room;
        let mut bytes = self.header(if self.stream { u64::MAX } else { 5 });
        put(&mut bytes, 512, self.descriptor.as_bytes());
        bytes.resize(128 * 512, 0);
        if !self.stream {
            let end = first_table + tables * TABLE * 4;
            bytes.resize(bytes.len().max(end).next_multiple_of(512), 0);
        }
        for (index, kind) in self.puts.iter().enumerate() {
            let start = (index * self.grain).min(self.size);
            let mut data = self.disk[start..(start + self.grain).min(self.size)].to_vec();
            data.resize(self.grain, 0);
            match kind {
                Put::Hole => continue,
                Put::Zero => entries[index] = 1,
                _ => {
                    entries[index] = (bytes.len() / 512) as u32;
                    if self.stream {
                        let packed = miniz_oxide::deflate::compress_to_vec_zlib(&data, 6);
                        bytes.extend(((index * self.grain / 512) as u64).to_le_bytes());
                        bytes.extend((packed.len() as u32).to_le_bytes());
                        bytes.extend(packed);
                    } else {
                        bytes.extend(data);
                    }
                    bytes.resize(bytes.len().next_multiple_of(512), 0);
                }
            }
        }
        let marker = |sectors: u64, kind: u32| {
            let mut marker = vec![0; 512];
            le64(&mut marker, 0, sectors);
            le32(&mut marker, 12, kind);
            marker
        };
        let mut table_at = first_table;
        let mut directory_at = directory;
        if self.stream {
            bytes.extend(marker((tables * TABLE * 4 / 512) as u64, 1));
            table_at = bytes.len();
            bytes.resize(table_at + tables * TABLE * 4, 0);
            bytes.extend(marker((directory_room / 512) as u64, 2));
            directory_at = bytes.len();
            bytes.resize(directory_at + directory_room, 0);
        }
        for table in 0..tables {
            let at = table_at + table * TABLE * 4;
            let chunk = &entries[table * TABLE..(table + 1) * TABLE];
            if chunk.iter().any(|entry| *entry != 0) {
                le32(&mut bytes, directory_at + table * 4, (at / 512) as u32);
            }
            for (index, entry) in chunk.iter().enumerate() {
                le32(&mut bytes, at + index * 4, *entry);
            }
        }
        if self.stream {
            bytes.extend(marker(1, 3));
            bytes.extend(self.header((directory_at / 512) as u64));
            bytes.extend(marker(0, 0));
        }
        bytes
    }
}

/// The text of a descriptor with these extents.
pub(crate) fn descriptor(kind: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"{kind}\"\n\n# Mapping description\n{extents}\n\n# The Disk Data Base\n\
         #DDB\nddb.virtualHWVersion = \"4\"\n"
    )
}
