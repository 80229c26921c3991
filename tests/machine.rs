//! What a machine leaves behind in a process that makes many of them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::{read_dir, read_link};
use std::sync::Arc;

use common::{needs_kvm, test};
use vmm::machine::{Machine, open_kvm};
use vmm::storage::MemoryStorage;
use vmm::virtio::block::{Block, BlockConfig};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// Descriptors of this process that are VMs or vCPUs.
fn open_vms() -> usize {
    read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| read_link(entry.unwrap().path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("anon_inode:kvm-v"))
        .count()
}

#[test]
fn a_process_that_drops_many_machines_keeps_none_of_them() {
    needs_kvm!();
    for _ in 0..50 {
        let mut machine = Machine::new(open_kvm().unwrap(), 1).unwrap();
        let config = BlockConfig {
            capacity: 4096,
            sector_size: 512,
            read_only: false,
            id: [0; 20],
            zeroes: false,
        };
        let disk = Arc::new(MemoryStorage::new(vec![0; 4096]));
        let memory = machine.memory().clone();
        let block = Block::new(&config, disk, memory, machine.line()).unwrap();
        machine.add_virtio(Arc::new(block)).unwrap();
        let vcpu = machine.boot(&[0xeb, 0xfe]).unwrap();
        assert!(open_vms() >= 2);
        drop(vcpu);
    }
    assert_eq!(open_vms(), 0);
}
