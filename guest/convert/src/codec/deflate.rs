//! Deflate by libdeflate (RFC 1951 and 1950): whole buffers only.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;

use super::Fault;

/// The library's state, of which only it knows the inside.
#[repr(C)]
struct State {
    _private: [u8; 0],
}

/// LIBDEFLATE_SUCCESS.
const SUCCESS: c_int = 0;

// As in libdeflate.h. The bindings that come with the library need a standard library.
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

/// A decoder of both kinds.
#[derive(Debug)]
pub(super) struct Decoder(NonNull<State>);

impl Decoder {
    /// `None` if there is no memory for it.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: the function takes nothing and returns a state or null.
        NonNull::new(unsafe { libdeflate_alloc_decompressor() }).map(Self)
    }

    /// Inflates a stream, with a header and a checksum if it is of `zlib`. What follows it in
    /// `input` is not looked at. Returns how many bytes of `output` are filled.
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
