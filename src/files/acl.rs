//! POSIX access control lists as the kernel hands them out (acl(5), the extended attribute
//! `system.posix_acl_access`): who else may use a file, beside what its mode says. With such a
//! list the mode's group bits are the list's mask, and no longer what the group may do.

/// The attribute that holds a file's list.
pub(super) const ATTRIBUTE: &str = "system.posix_acl_access";

/// The version that stands in the first four bytes (linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;

/// Whom an entry is about (linux/posix_acl.h).
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A list in the kernel's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<u8>);

/// What the entries allow, of read (4), write (2) and execute (1).
#[derive(Clone, Copy, Debug)]
struct Summary {
    owner: u16,
    group: u16,
    other: u16,
    mask: u16,
    /// What each of the named users and groups may do, before the mask.
    all_named: u16,
    all_named_groups: u16,
}

impl Acl {
    /// Takes the attribute's value, if this is a form that is known here.
    pub(super) fn parse(value: Vec<u8>) -> Option<Self> {
        let version = value.get(..HEADER)?;
        let whole = (value.len() - HEADER).is_multiple_of(ENTRY);
        (version == VERSION.to_le_bytes() && whole).then_some(Self(value))
    }

    /// The attribute's value.
    pub(super) fn value(&self) -> &[u8] {
        &self.0
    }

    /// The mode that gives nobody more than the list does, for where there are no lists.
    pub(super) fn strictest_mode(&self) -> u32 {
        let allowed = self.summary();
        // Who is named here is one of the group or of the others there.
        let named = allowed.all_named & allowed.mask;
        let group = allowed.group & allowed.mask & named;
        let other = allowed.other & named;
        u32::from(allowed.owner) << 6 | u32::from(group) << 3 | u32::from(other)
    }

    /// Changes the list for a file that has another group than the one it was made for: neither
    /// the members of the new group, who were among the others or in a named one, nor those of
    /// the old, who are so now, get more than before.
    pub(super) fn change_group(&mut self) {
        let allowed = self.summary();
        let group = allowed.group & allowed.mask & allowed.other & allowed.all_named_groups;
        let other = allowed.other & allowed.group & allowed.mask;
        for entry in self.0[HEADER..].chunks_exact_mut(ENTRY) {
            let permissions = match field(entry, 0) {
                GROUP_OBJ => group,
                OTHER => other,
                _ => continue,
            };
            entry[2..4].copy_from_slice(&permissions.to_le_bytes());
        }
    }

    fn summary(&self) -> Summary {
        let mut allowed = Summary {
            owner: 0,
            group: 0,
            other: 0,
            mask: 7,
            all_named: 7,
            all_named_groups: 7,
        };
        for entry in self.0[HEADER..].chunks_exact(ENTRY) {
            let permissions = field(entry, 1) & 7;
            match field(entry, 0) {
                USER_OBJ => allowed.owner = permissions,
                GROUP_OBJ => allowed.group = permissions,
                OTHER => allowed.other = permissions,
                MASK => allowed.mask = permissions,
                USER => allowed.all_named &= permissions,
                GROUP => {
                    allowed.all_named &= permissions;
                    allowed.all_named_groups &= permissions;
                }
                // An unknown kind of entry may forbid anything.
                _ => allowed.all_named = 0,
            }
        }
        allowed
    }
}

/// The 16-bit field `index` of an entry.
fn field(entry: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([entry[2 * index], entry[2 * index + 1]])
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A list with these permissions: owner, a named user, group, a named group, mask, other.
    pub(crate) fn list(
        owner: u16,
        user: u16,
        group: u16,
        named: u16,
        mask: u16,
        other: u16,
    ) -> Acl {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in [
            (USER_OBJ, owner, u32::MAX),
            (USER, user, 12345),
            (GROUP_OBJ, group, u32::MAX),
            (GROUP, named, 23456),
            (MASK, mask, u32::MAX),
            (OTHER, other, u32::MAX),
        ] {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        Acl(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::testing::list;
    use super::*;

    #[test]
    fn the_mode_in_place_of_a_list_gives_nobody_more() {
        // The group may do nothing; the mode's group bits, which are the mask, say 6.
        assert_eq!(list(6, 6, 0, 6, 6, 0).strictest_mode(), 0o600);
        assert_eq!(list(6, 4, 4, 4, 4, 4).strictest_mode(), 0o644);
        // A named user who may do nothing would be one of the others.
        assert_eq!(list(6, 0, 4, 4, 4, 4).strictest_mode(), 0o600);
        assert_eq!(list(7, 7, 7, 7, 1, 7).strictest_mode(), 0o711);
    }

    #[test]
    fn a_list_for_another_group_gives_neither_group_more() {
        let mut acl = list(6, 4, 6, 4, 6, 4);
        acl.change_group();
        assert_eq!(acl, list(6, 4, 4, 4, 6, 4));
        let mut acl = list(6, 4, 0, 4, 6, 4);
        acl.change_group();
        assert_eq!(acl, list(6, 4, 0, 4, 6, 0));
        let mut acl = list(6, 4, 6, 0, 6, 6);
        acl.change_group();
        assert_eq!(acl, list(6, 4, 0, 0, 6, 6));
    }

    #[test]
    fn an_entry_of_an_unknown_kind_may_forbid_anything() {
        for tag in [0x40, 0x102, 0x4000_u16] {
            let Acl(mut value) = list(6, 6, 6, 6, 6, 6);
            value.extend(tag.to_le_bytes());
            value.extend([6, 0, 0, 0, 0, 0]);
            assert_eq!(Acl(value).strictest_mode(), 0o600, "{tag:#x}");
        }
    }

    #[test]
    fn a_list_is_written_as_it_was_read() {
        let Acl(value) = list(6, 4, 6, 4, 6, 4);
        assert_eq!(Acl::parse(value.clone()).unwrap().value(), value);
    }

    #[test]
    fn a_value_of_another_form_is_no_list() {
        for value in [vec![], vec![1, 0, 0, 0], vec![2, 0, 0, 0, 1], vec![2, 0, 0]] {
            assert_eq!(Acl::parse(value), None);
        }
        assert!(Acl::parse(vec![2, 0, 0, 0]).is_some());
    }
}
