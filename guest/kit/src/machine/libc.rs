//! The memory functions that compiled code calls and that a C library would have: `memcpy`,
//! `memmove`, `memset`, `memcmp` and `bcmp` (ISO C, section 7.26). They are written with string
//! instructions, because the compiler would recognise an ordinary loop and replace it by a call of
//! the very function.
//!
//! The linker script gives them their names in C: tests on the host, which link this crate as well,
//! keep their C library's.

use core::arch::asm;
use core::ffi::c_int;

/// # Safety
///
/// `source` must be valid for reads and `target` for writes of `len` bytes, without overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn guest_memcpy(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the instruction touches exactly the bytes that the caller vouches for, upwards.
    unsafe {
        asm!(
            "rep movsb",
            inout("rdi") target => _,
            inout("rsi") source => _,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
    }
    target
}

/// # Safety
///
/// `source` must be valid for reads and `target` for writes of `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn guest_memmove(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    if target.addr().wrapping_sub(source.addr()) >= len {
        // SAFETY: the same contract; upwards, no byte is overwritten before it is read.
        return unsafe { guest_memcpy(target, source, len) };
    }
    // SAFETY: exactly the bytes that the caller vouches for, downwards since the target lies
    // above the source; the direction flag is clear again afterwards. `len` is not 0 here.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rdi") target.wrapping_add(len).wrapping_sub(1) => _,
            inout("rsi") source.wrapping_add(len).wrapping_sub(1) => _,
            inout("rcx") len => _,
            options(nostack),
        );
    }
    target
}

/// # Safety
///
/// `target` must be valid for writes of `len` bytes.
#[unsafe(no_mangle)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // C says: as unsigned char.
unsafe extern "C" fn guest_memset(target: *mut u8, value: c_int, len: usize) -> *mut u8 {
    // SAFETY: the instruction writes exactly the bytes that the caller vouches for, upwards.
    unsafe {
        asm!(
            "rep stosb",
            inout("rdi") target => _,
            in("al") value as u8,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
    }
    target
}

/// # Safety
///
/// Both must be valid for reads of `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn guest_memcmp(left: *const u8, right: *const u8, len: usize) -> c_int {
    let byte = |of: *const u8, index: usize| {
        // SAFETY: `index` is less than `len`, for which the caller vouches. Volatile, so that the
        // compiler does not recognise what this loop is.
        c_int::from(unsafe { of.wrapping_add(index).read_volatile() })
    };
    (0..len)
        .map(|index| byte(left, index) - byte(right, index))
        .find(|&difference| difference != 0)
        .unwrap_or(0)
}

/// # Safety
///
/// As for [`guest_memcmp`].
#[unsafe(no_mangle)]
unsafe extern "C" fn guest_bcmp(left: *const u8, right: *const u8, len: usize) -> c_int {
    // SAFETY: the same contract.
    unsafe { guest_memcmp(left, right, len) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moving_bytes_keeps_them_however_source_and_target_overlap(
            mut bytes in prop::collection::vec(any::<u8>(), 64),
            from in 0..32_usize,
            to in 0..32_usize,
            len in 0..=32_usize,
        ) {
            let mut expected = bytes.clone();
            expected.copy_within(from..from + len, to);
            let base = bytes.as_mut_ptr();
            // SAFETY: both ranges lie within the 64 bytes.
            unsafe { guest_memmove(base.wrapping_add(to), base.wrapping_add(from), len) };
            prop_assert_eq!(bytes, expected);
        }

        #[test]
        fn copies_fills_and_comparisons_do_what_slices_do(
            left in prop::collection::vec(0..3_u8, 0..20),
            value in any::<u8>(),
            at in any::<prop::sample::Index>(),
        ) {
            let mut right = vec![0; left.len()];
            // SAFETY: two vectors of the same length.
            unsafe { guest_memcpy(right.as_mut_ptr(), left.as_ptr(), left.len()) };
            prop_assert_eq!(&right, &left);
            if let Some(byte) = right.get_mut(at.index(left.len().max(1))) {
                *byte = value;
            }
            // SAFETY: as above.
            let order = unsafe { guest_memcmp(left.as_ptr(), right.as_ptr(), left.len()) };
            prop_assert_eq!(order.cmp(&0), left.cmp(&right));
            // SAFETY: as above.
            unsafe { guest_memset(right.as_mut_ptr(), value.into(), right.len()) };
            prop_assert!(right.iter().all(|&byte| byte == value));
        }
    }
}
