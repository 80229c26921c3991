#![allow(clippy::unwrap_used)]

use super::*;

const GOOD: QueueConfig = QueueConfig {
    size: 8,
    desc_table: 0x1000,
    avail_ring: 0x2000,
    used_ring: 0x3000,
    ready: true,
};

fn build(config: QueueConfig) -> Result<Queue, QueueConfigError> {
    let memory =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000), (GuestAddress(0x8000), 0x1000)])
            .unwrap();
    config.build(16, true, &memory)
}

#[test]
fn a_queue_has_what_its_registers_say() {
    let queue = build(GOOD).unwrap();
    assert!(queue.ready());
    assert_eq!(queue.size(), 8);
    assert_eq!(queue.desc_table(), 0x1000);
    assert_eq!(queue.avail_ring(), 0x2000);
    assert_eq!(queue.used_ring(), 0x3000);
    assert!(queue.event_idx_enabled());
}

#[test]
fn a_queue_that_is_not_ready_is_not_checked() {
    let queue = build(QueueConfig {
        size: 3,
        ready: false,
        ..GOOD
    })
    .unwrap();
    assert!(!queue.ready());
}

#[test]
fn a_size_is_a_power_of_two_within_the_maximum_in_all_its_32_bits() {
    for size in [0, 3, 17, 32, 0x1_0008, u32::MAX] {
        let error = build(QueueConfig { size, ..GOOD }).unwrap_err();
        assert_eq!(error, QueueConfigError::Size { size, max: 16 });
    }
}

#[test]
fn each_area_has_its_alignment() {
    for config in [
        QueueConfig {
            desc_table: 0x1008,
            ..GOOD
        },
        QueueConfig {
            avail_ring: 0x2001,
            ..GOOD
        },
        QueueConfig {
            used_ring: 0x3002,
            ..GOOD
        },
    ] {
        assert!(matches!(
            build(config),
            Err(QueueConfigError::Alignment { .. })
        ));
    }
}

#[test]
fn each_area_lies_in_one_region_of_memory() {
    for config in [
        QueueConfig {
            desc_table: 0x9000,
            ..GOOD
        },
        QueueConfig {
            desc_table: 0x8ff0,
            ..GOOD
        },
        QueueConfig {
            desc_table: 0x7ff0,
            ..GOOD
        },
        QueueConfig {
            avail_ring: u64::MAX - 1,
            ..GOOD
        },
        QueueConfig {
            avail_ring: 0,
            ..GOOD
        },
        QueueConfig {
            used_ring: 0x8ffc,
            ..GOOD
        },
    ] {
        assert!(matches!(
            build(config),
            Err(QueueConfigError::Memory { .. })
        ));
    }
}

#[test]
fn areas_that_overlap_are_refused() {
    for config in [
        QueueConfig {
            avail_ring: 0x107e,
            ..GOOD
        },
        QueueConfig {
            used_ring: 0x2014,
            ..GOOD
        },
        QueueConfig {
            used_ring: 0x1000,
            ..GOOD
        },
    ] {
        assert!(matches!(build(config), Err(QueueConfigError::Overlap(..))));
    }
    assert!(
        build(QueueConfig {
            avail_ring: 0x1080,
            ..GOOD
        })
        .is_ok()
    );
}

/// The table has 128 bytes, the available ring 22, the used ring 70.
#[test]
fn areas_may_touch_each_other_and_the_end_of_memory_on_either_side() {
    let before = |avail_ring| QueueConfig { avail_ring, ..GOOD };
    assert!(build(before(0x1000 - 22)).is_ok());
    assert_eq!(
        build(before(0x1000 - 20)).unwrap_err(),
        QueueConfigError::Overlap("descriptor table", "available ring")
    );
    let used = |used_ring| QueueConfig { used_ring, ..GOOD };
    assert!(build(used(0x2000 - 72)).is_ok());
    assert!(build(used(0x2000 + 24)).is_ok());
    assert_eq!(
        build(used(0x2000 - 68)).unwrap_err(),
        QueueConfigError::Overlap("available ring", "used ring")
    );
    for (last, config) in [
        (0x9000 - 22, before as fn(u64) -> QueueConfig),
        (0x9000 - 72, used),
    ] {
        assert!(build(config(last)).is_ok());
        let error = build(config(last + 4)).unwrap_err();
        assert!(matches!(error, QueueConfigError::Memory { .. }), "{error}");
    }
    let desc_table = 0x9000 - 128;
    assert!(build(QueueConfig { desc_table, ..GOOD }).is_ok());
}

#[test]
fn a_driver_that_chooses_no_size_gets_the_largest() {
    let config = QueueConfig::new(16);
    assert!(!config.ready);
    let queue = build(QueueConfig {
        size: config.size,
        ..GOOD
    });
    assert_eq!(queue.unwrap().size(), 16);
}
