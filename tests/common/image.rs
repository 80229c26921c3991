//! A plain image for tests that are not about images: qcow2 version 3, with all of its data
//! (docs/interop/qcow2.rst of QEMU).

const CLUSTER: usize = 64 << 10;
/// What lies in each cluster.
const REFCOUNT_TABLE: usize = 1;
const REFCOUNTS: usize = 2;
const L1: usize = 3;
const L2: usize = 4;
const DATA: usize = 5;
/// An entry of a table: the cluster belongs to it alone.
const COPIED: u64 = 1 << 63;

/// An image whose disk is `disk`, of whole sectors and of no more than 512 MiB.
pub(crate) fn qcow2(disk: &[u8]) -> Vec<u8> {
    assert!(disk.len().is_multiple_of(512), "{} bytes", disk.len());
    let clusters = disk.len().div_ceil(CLUSTER);
    let mut image = vec![0; (DATA + clusters) * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let offset = |cluster: usize| (cluster * CLUSTER) as u64;
    put(0, b"QFI\xfb");
    for (at, value) in [
        // Version, bits of a cluster, entries of L1, clusters of the table of refcounts.
        (4, 3),
        (20, 16),
        (36, 1),
        (56, 1),
        // As a power of two the bits of a refcount; the header's length.
        (96, 4),
        (100, 104),
    ] {
        put(at, &u32::to_be_bytes(value));
    }
    for (at, value) in [
        (24, disk.len() as u64),
        (40, offset(L1)),
        (48, offset(REFCOUNT_TABLE)),
        (REFCOUNT_TABLE * CLUSTER, offset(REFCOUNTS)),
        (L1 * CLUSTER, offset(L2) | COPIED),
    ] {
        put(at, &value.to_be_bytes());
    }
    for cluster in 0..DATA + clusters {
        put(REFCOUNTS * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    for cluster in 0..clusters {
        let entry = offset(DATA + cluster) | COPIED;
        put(L2 * CLUSTER + 8 * cluster, &entry.to_be_bytes());
    }
    put(DATA * CLUSTER, disk);
    image
}
