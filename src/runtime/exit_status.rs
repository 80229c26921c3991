//! The exit statuses of all commands, beside 0. `--help` says what each of them means there.

/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The host failed: a file, memory, KVM.
pub const HOST: u8 = 3;
/// The guest failed.
pub const GUEST: u8 = 4;
/// The image may be whole, but is not to be used, or cannot be checked.
pub const REFUSED: u8 = 5;
/// The image contradicts itself.
pub const BROKEN: u8 = 6;
/// A check found nothing but space that is lost.
pub const LEAKS: u8 = 7;
/// The time limit ended the run (as timeout(1) has it).
pub const TIMEOUT: u8 = 124;
/// A signal ended the run: this and the signal's number (as shells have it).
pub const SIGNAL: u8 = 128;
