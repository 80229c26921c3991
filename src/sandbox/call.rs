//! The system calls of a thread as a plain value: which calls, and what their arguments must be.
//!
//! A value of this kind can be made, joined with another and read where there is no seccomp; it
//! becomes a filter in [`super::Filter`].

use syscalls::Sysno;

/// What one argument of a call must be. The kernel takes all of these as numbers of 32 bits, so
/// that the upper half of the register is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, counted from 0.
    pub argument: u8,
    /// What it must be.
    pub test: Test,
}

/// What a number must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// This number.
    Equals(u32),
    /// A number that has all of these bits.
    HasAll(u32),
    /// A number that has none of these bits.
    HasNone(u32),
}

impl Condition {
    pub(super) const fn new(argument: u8, test: Test) -> Self {
        Self { argument, test }
    }

    fn holds(self, arguments: &[u64; 6]) -> bool {
        let Some(&value) = arguments.get(usize::from(self.argument)) else {
            return false;
        };
        #[expect(clippy::cast_possible_truncation, reason = "as the filter does it")]
        let value = value as u32;
        match self.test {
            Test::Equals(number) => value == number,
            Test::HasAll(bits) => value & bits == bits,
            Test::HasNone(bits) => value & bits == 0,
        }
    }
}

/// One allowed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    number: i64,
    conditions: Vec<Condition>,
}

impl Call {
    pub(super) fn new(number: i64, conditions: &[Condition]) -> Self {
        Self {
            number,
            conditions: conditions.to_vec(),
        }
    }

    /// Its number on this architecture (`libc::SYS_*`).
    #[must_use]
    pub const fn number(&self) -> i64 {
        self.number
    }

    /// Its name, as in the manual.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name(self.number)
    }

    /// What its arguments must be, all of it at once. Nothing, if any will do.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Whether a call with this number and these arguments is this one.
    #[must_use]
    pub fn permits(&self, number: i64, arguments: &[u64; 6]) -> bool {
        let holds = |condition: &Condition| condition.holds(arguments);
        self.number == number && self.conditions.iter().all(holds)
    }
}

/// The name of a call, as in the manual.
pub(super) fn name(number: i64) -> &'static str {
    let call = usize::try_from(number).ok().and_then(Sysno::new);
    call.map_or("(unknown)", |call| call.name())
}

/// The system calls that one thread makes, a plain value that needs no seccomp to be made. What
/// the C library may call on any thread ([`super::ANY_THREAD`]) need not be in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(Vec<Call>);

impl Calls {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// And the call `number` (`libc::SYS_*`), with any arguments.
    #[must_use]
    pub fn allow(self, number: i64) -> Self {
        self.allow_with(number, &[])
    }

    /// And the call `number` (`libc::SYS_*`), if each of `arguments`, which are pairs of an index
    /// from 0 and a number of 32 bits, has its value. Several of these for one call are
    /// alternatives.
    #[must_use]
    pub fn allow_with(mut self, number: i64, arguments: &[(u8, u64)]) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "32 bits are looked at")]
        let equals =
            |&(argument, value): &(u8, u64)| Condition::new(argument, Test::Equals(value as u32));
        let conditions = arguments.iter().map(equals).collect();
        self.0.push(Call { number, conditions });
        self
    }

    /// And all of `other`.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// Each of them; alternatives for one call come one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Call> {
        self.0.iter()
    }
}

impl FromIterator<Call> for Calls {
    fn from_iter<I: IntoIterator<Item = Call>>(calls: I) -> Self {
        Self(calls.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_looked_at_one_by_one_and_each_as_a_whole() {
        let calls = Calls::new()
            .allow_with(libc::SYS_ioctl, &[(0, 3), (1, 5)])
            .allow_with(libc::SYS_ioctl, &[(1, 6)])
            .and(&Calls::new().allow(libc::SYS_read));
        let permits =
            |number, arguments: [u64; 6]| calls.iter().any(|call| call.permits(number, &arguments));
        assert!(permits(libc::SYS_ioctl, [3, 5, 0, 0, 0, 0]));
        assert!(permits(libc::SYS_ioctl, [9, 6, 0, 0, 0, 0]));
        assert!(permits(libc::SYS_ioctl, [9, (7 << 32) | 6, 0, 0, 0, 0]));
        assert!(!permits(libc::SYS_ioctl, [4, 5, 0, 0, 0, 0]));
        assert!(permits(libc::SYS_read, [9; 6]));
        assert!(!permits(libc::SYS_write, [9; 6]));
    }

    #[test]
    fn a_call_has_the_name_of_the_manual() {
        let calls = Calls::new().allow(libc::SYS_epoll_pwait).allow(9999);
        let names: Vec<_> = calls.iter().map(Call::name).collect();
        assert_eq!(names, ["epoll_pwait", "(unknown)"]);
    }
}
