//! A hostile driver of a virtio console (virtio 1.2, section 5.3), and a reader at its other end
//! that may be slow. Whatever it does: nothing panics, every round ends, memory that the driver did
//! not offer stays as it was, no byte is lost or made up, and after a reset the console works.

mod action;
mod device;
pub mod seeds;
mod writer;

use std::cell::Cell;

use arbitrary::{Result, Unstructured};

use super::virtio::Board;
use super::virtio::driver::VERSION_1;
use super::{Kept, with_rig};
use action::Action;
pub use device::Passed;
use device::{CAPACITY, Rig, SIZE};

/// More would make single inputs slow without reaching anything new.
const MAX_ACTIONS: usize = 128;

thread_local! {
    static BOARD: Cell<Option<Kept<Board>>> = const { Cell::new(None) };
}

/// Carries `bytes` out as a driver's actions.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    passed(bytes);
}

/// The same, and says what has passed through the console.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn passed(bytes: &[u8]) -> Passed {
    with_rig(&BOARD, Board::new, |board| {
        // Running out of bytes is no more than the end of the input.
        let passed = drive(board, &mut Unstructured::new(bytes));
        board.clear();
        passed.unwrap_or_default()
    })
}

fn drive(board: &Board, u: &mut Unstructured<'_>) -> Result<Passed> {
    let setup: u8 = u.arbitrary()?;
    let len = u.int_in_range(1..=3 * CAPACITY)?;
    let most = u.int_in_range(16..=CAPACITY)?;
    let mut rig = Rig::new(board);
    if setup & 1 == 0 {
        rig.start(VERSION_1 | 1 << 28, [SIZE, SIZE]);
    }
    for _ in 0..MAX_ACTIONS {
        if u.is_empty() {
            break;
        }
        let (index, action) = Action::take(u)?;
        rig.apply(index, action);
    }
    rig.check();
    let passed = rig.passed;
    rig.examine(len, most);
    rig.check();
    Ok(passed)
}
