//! What a person or a program sees: messages as lines or objects, the progress bar, and output that
//! never blocks the run. [`Console`] is the one way through which a run speaks.

mod bar;
mod console;
mod debug_lines;
mod json;
mod line;
mod quote;
mod stream;
#[cfg(test)]
mod testing;
mod text;

pub use console::{
    ANSWER_PIECE, Console, ConsoleOptions, Drained, OutputFormat, PIECE, last_words,
};
pub use debug_lines::{DEBUG_PREFIX, DebugLines, MAX_DEBUG};
pub use guest_protocol::hex;
pub use json::{
    Exits, RunEnd, RunResult, debug_object, finding_object, host_check_object, message_object,
    one_line, result_object, text_object, warning_object,
};
pub use line::message_line;
pub use quote::{
    MAX_DETAIL, MAX_SHOWN, is_visible, push_line, quote_detail, quote_text, quote_word,
};
pub use stream::is_reader_gone;
