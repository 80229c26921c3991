//! Inflates whole buffers with libdeflate (RFC 1951, and RFC 1950 for the zlib header and
//! checksum).

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;

use super::Fault;

/// The state of the library, which only the library itself can look into.
#[repr(C)]
struct State {
    _private: [u8; 0],
}

/// What `LIBDEFLATE_SUCCESS` is in libdeflate.h.
const SUCCESS: c_int = 0;

// These are declared as in libdeflate.h. The bindings that come with the library cannot be used,
// since they need a standard library.
unsafe extern "C" {
    fn libdeflate_alloc_decompressor() -> *mut State;
    fn libdeflate_free_decompressor(state: *mut State);
    fn libdeflate_deflate_decompress_ex(
        state: *mut State,
        input: *const c_void,
        input_len: usize,
        output: *mut c_void,
        output_len: usize,
        consumed: *mut usize,
        made: *mut usize,
    ) -> c_int;
    fn libdeflate_zlib_decompress_ex(
        state: *mut State,
        input: *const c_void,
        input_len: usize,
        output: *mut c_void,
        output_len: usize,
        consumed: *mut usize,
        made: *mut usize,
    ) -> c_int;
}

/// A decoder for streams with and without a zlib header.
#[derive(Debug)]
pub(super) struct Decoder(NonNull<State>);

impl Decoder {
    /// A decoder, or nothing if there is no memory for it.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: the function takes nothing and returns a state or null.
        NonNull::new(unsafe { libdeflate_alloc_decompressor() }).map(Self)
    }

    /// Inflates the stream at the start of `input` to the start of `output`, and returns how many
    /// bytes that made. With `zlib` the stream has a header and a checksum. What follows it in
    /// `input` is not looked at.
    pub(super) fn inflate(
        &mut self,
        zlib: bool,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, Fault> {
        let decompress = match zlib {
            true => libdeflate_zlib_decompress_ex,
            false => libdeflate_deflate_decompress_ex,
        };
        let (mut consumed, mut made) = (0, 0);
        // SAFETY: the state is a live one; the pointers are those of slices with the lengths beside
        // them, and of two numbers.
        let result = unsafe {
            decompress(
                self.0.as_ptr(),
                input.as_ptr().cast(),
                input.len(),
                output.as_mut_ptr().cast(),
                output.len(),
                &raw mut consumed,
                &raw mut made,
            )
        };
        match result {
            SUCCESS => Ok(made),
            _ => Err(Fault::Data),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the state is a live one, and nobody has it any more.
        unsafe { libdeflate_free_decompressor(self.0.as_ptr()) };
    }
}
