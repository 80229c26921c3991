//! Which users and groups mean what they say. In a user namespace, as a rootless container is one, all
//! that are not known there look like one and the same, whose number can also be that of somebody who
//! is known there (user_namespaces(7)).

use std::fs;
use std::path::Path;

/// The number that stands for all that are not known, unless the system says another one.
const UNKNOWN: u32 = 65534;

/// Whether `user` is one and no other; nothing if that cannot be found out.
pub(super) fn is_one_user(user: u32) -> Option<bool> {
    is_one(user, "uid_map", "overflowuid")
}

/// Whether `group` is one and no other; nothing if that cannot be found out.
pub(super) fn is_one_group(group: u32) -> Option<bool> {
    is_one(group, "gid_map", "overflowgid")
}

fn is_one(number: u32, map: &str, unknown: &str) -> Option<bool> {
    let unknown = Path::new("/proc/sys/kernel").join(unknown);
    let unknown = fs::read_to_string(unknown).ok();
    let unknown = unknown.and_then(|text| text.trim().parse().ok());
    if number != unknown.unwrap_or(UNKNOWN) {
        return Some(true);
    }
    let map = fs::read_to_string(Path::new("/proc/self").join(map)).ok()?;
    Some(knows_all(&map))
}

/// Whether nobody is unknown where this is the map of the known.
fn knows_all(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_map_of_all_leaves_nobody_unknown() {
        assert!(knows_all("         0          0 4294967295\n"));
        for map in ["", "0 100000 65536\n", "0 0 1\n1 1 4294967294\n"] {
            assert!(!knows_all(map), "{map:?}");
        }
    }

    #[test]
    fn whoever_has_a_number_of_their_own_is_known() {
        assert_eq!(is_one_user(0), Some(true));
        assert_eq!(is_one_group(1000), Some(true));
    }
}
